"""Linear layers in int8 give the results of the original ones within tolerance, or the model is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from l2v.models import Input, UnsupportedModelError, load
from l2v.models.compilation import compile_layers
from l2v.models.errors import ModelError
from l2v.models.export import export
from l2v.models.quantization.inputs import InputQuantizer
from l2v.models.quantization.int8 import Int8Linear, available, quantize_rows
from tests import tiny
from tests.models.test_attention import cosines

pytestmark = pytest.mark.skipif(not available(torch.device("cpu")), reason="this CPU has no VNNI")

INPUTS = [Input(f"text {i} " + "of some words " * (i * 5 % 30), "Find it:" * (i % 2)) for i in range(80)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (33, 7)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_gives_the_product_of_what_it_rounds(inner: int, outer: int, dtype: torch.dtype, *, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(inner, outer, bias=bias, dtype=dtype)
    # Tokens of very different norms; one whose values have the same magnitude; and one of zeros.
    states = torch.randn(9, inner) * torch.logspace(-3, 3, 9)[:, None]
    states[7], states[8] = states[7].sign() * 1.73, 0
    states = states.to(dtype)[None]
    with torch.inference_mode():
        expected, given = linear(states).double(), Int8Linear(linear, InputQuantizer(quantize_rows))(states)
    assert given.dtype == dtype
    assert given.shape == expected.shape
    error = (given.double() - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-9)
    assert error.max() < 0.02


def test_layers_share_quantized_inputs_only_for_the_same_input() -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 16, bias=False)
    quantize_input = InputQuantizer(quantize_rows)
    first, second = Int8Linear(linear, quantize_input), Int8Linear(linear, quantize_input)
    with torch.inference_mode():
        states, others = torch.randn(2, 4, 16)
        assert torch.equal(first(states), second(states))
        assert not torch.equal(first(states), second(others))
        assert torch.equal(second(others.clone()), first(others))


def test_quantization_does_not_hide_nan_and_infinity() -> None:
    states = torch.ones(3, 8)
    states[0, 2], states[1, 2] = torch.nan, torch.inf
    with torch.inference_mode():
        given = Int8Linear(torch.nn.Linear(8, 8), InputQuantizer(quantize_rows))(states)
    assert given.isfinite().all(-1).tolist() == [False, False, True]


def test_vectors_are_close_to_those_of_float32() -> None:
    exact, given = load("demo", dtype="float32"), load("demo", dtype="int8")
    assert cosines(given.encode(INPUTS), exact.encode(INPUTS)).min() >= 0.995
    assert given.dtype == "int8"
    assert given.describe() | {"dtype": "float32"} == exact.describe()
    # The embeddings, half of the weights, are not quantized.
    assert given.weight_bytes < 0.4 * exact.weight_bytes
    assert any(line.startswith("int8: ") for line in given.evidence)


def test_a_model_that_loses_too_much_precision_is_refused(tmp_path: Path) -> None:
    """Its norms make one value of each token so large that the others become 0, and its weights ignore that value."""
    from safetensors.torch import load_file, save_file

    folder = tiny.make_base(tmp_path)
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith("layernorm.weight"):
            weight[0] = 1e5
        elif name.endswith(("q_proj.weight", "k_proj.weight")):
            weight[:, 0] = 0
        elif name.endswith(("v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            weight[:, 0] = 0
            weight.mul_(10)
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            weight.mul_(10)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    load(str(folder), dtype="float32")
    with pytest.raises(UnsupportedModelError, match="int8 changes the hidden states"):
        load(str(folder), dtype="int8")


def test_it_is_neither_exported_nor_compiled(adapter: Path, tmp_path: Path) -> None:
    encoder = load(str(adapter), dtype="int8")
    with pytest.raises(ModelError, match="another dtype"):
        export(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnsupportedModelError, match="cannot be compiled"):
        compile_layers(encoder)
    assert np.isfinite(encoder.encode(INPUTS[:2])).all()
