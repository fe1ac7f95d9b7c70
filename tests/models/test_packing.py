"""Packed weights give what the model's own do, and are refused where they cannot be used."""

from pathlib import Path

import pytest
import torch

from l2v.models import Input, UnsupportedModelError, load
from l2v.models.compilation import compile_layers
from l2v.models.errors import ModelError
from l2v.models.export import export
from l2v.models.packing import PackedLinear, available
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
    packed = PackedLinear(linear)
    with torch.inference_mode():
        for tokens in (1, 9, 300):
            states = torch.randn(1, tokens, inner, dtype=linear.weight.dtype)
            torch.testing.assert_close(packed(states), linear(states))


@pytest.mark.parametrize(("dtype", "least"), DTYPES)
def test_a_packed_model_gives_the_same_vectors_alone_and_in_a_batch(adapter: Path, dtype: str, least: float) -> None:
    plain, packed = (load(str(adapter), dtype=dtype, packed=told) for told in (False, True))  # type: ignore[arg-type]
    inputs = [Input(text * n, instruction) for text in TEXTS for n, instruction in ((1, ""), (7, "Find it:"))]
    expected = plain.encode(inputs)
    assert cosines(packed.encode(inputs), expected).min() >= least
    for input_, vector in zip(inputs, expected, strict=True):
        assert cosines(packed.encode([input_]), vector[None]).min() >= least
    assert packed.packed
    assert not plain.packed
    assert packed.describe() == plain.describe()
    assert (packed.dtype, packed.weight_bytes) == (dtype, plain.weight_bytes)


def test_a_dtype_that_has_no_such_layout_stays_as_it_is(adapter: Path) -> None:
    assert not load(str(adapter), dtype="float16").packed


def test_it_is_neither_exported_nor_compiled(adapter: Path, tmp_path: Path) -> None:
    encoder = load(str(adapter), dtype="float32")
    with pytest.raises(ModelError, match="packed=False"):
        export(encoder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UnsupportedModelError, match="not compiled"):
        compile_layers(encoder)
