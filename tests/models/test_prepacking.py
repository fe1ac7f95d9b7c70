"""Prepacked weights give the same results as the original ones, and are refused by exports and compilation."""

from pathlib import Path

import pytest
import torch

from l2v.models import Input, UnsupportedModelError, load
from l2v.models.compilation import compile_layers
from l2v.models.errors import ModelError
from l2v.models.export import export
from l2v.models.prepacking import PrepackedLinear, available
from tests.models.test_attention import TEXTS, cosines

DTYPES = [
    pytest.param(
        name, least, marks=pytest.mark.skipif(not available(getattr(torch, name)), reason=f"not for {name} on this CPU")
    )
    for name, least in (("float32", 0.999999), ("bfloat16", 0.9999))
]


@pytest.mark.parametrize(("dtype", "_"), DTYPES)
@pytest.mark.parametrize(("inner", "outer"), [(64, 48), (33, 7)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_gives_the_same_product(inner: int, outer: int, dtype: str, _: float, *, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(inner, outer, bias=bias, dtype=getattr(torch, dtype))
    prepacked = PrepackedLinear(linear)
    with torch.inference_mode():
        for tokens in (1, 9, 300):
            states = torch.randn(1, tokens, inner, dtype=linear.weight.dtype)
            torch.testing.assert_close(prepacked(states), linear(states))


@pytest.mark.parametrize(("dtype", "least"), DTYPES)
def test_a_prepacked_model_gives_the_same_vectors_alone_and_in_a_batch(adapter: Path, dtype: str, least: float) -> None:
    plain, prepacked = (load(str(adapter), dtype=dtype, prepack=prepack) for prepack in (False, True))  # type: ignore[arg-type]
    inputs = [Input(text * n, instruction) for text in TEXTS for n, instruction in ((1, ""), (7, "Find it:"))]
    expected = plain.encode(inputs)
    assert cosines(prepacked.encode(inputs), expected).min() >= least
    for input_, vector in zip(inputs, expected, strict=True):
        assert cosines(prepacked.encode([input_]), vector[None]).min() >= least
    assert prepacked.prepacked
    assert not plain.prepacked
    assert prepacked.describe() == plain.describe()
    assert (prepacked.dtype, prepacked.weight_bytes) == (dtype, plain.weight_bytes)


def test_a_dtype_without_a_prepacked_layout_is_left_unchanged(adapter: Path) -> None:
    assert not load(str(adapter), dtype="float16").prepacked


def test_it_is_neither_exported_nor_compiled(adapter: Path, tmp_path: Path) -> None:
    encoder = load(str(adapter), dtype="float32")
    with pytest.raises(ModelError, match="prepack=False"):
        export(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnsupportedModelError, match="cannot be compiled"):
        compile_layers(encoder)
