"""No random model is refused for its rounding, however much its depth, width, dtype and scale of weights amplify it."""

import pytest
import torch

from l2v.models.linear import replace_linears
from l2v.models.verify import verify, verify_quantization
from tests.models.test_verify import Rounded, decoder

# Width and number of layers.
SHAPES = [(32, 1), (64, 8), (256, 3), (128, 16)]
# Standard deviations of the weights and of the adapters. With the lowest, attention is uniform; with the highest, each
# token attends to a single one.
SCALES = [(1e-5, 0.0), (1e-3, 0.0), (0.02, 0.0), (0.02, 0.06), (0.02, 0.12), (0.2, 0.0), (1.0, 0.0), (20.0, 0.0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("std", "adapters"), SCALES)
@pytest.mark.parametrize(("width", "layers"), SHAPES)
def test_a_random_model_passes(width: int, layers: int, std: float, adapters: float, dtype: torch.dtype) -> None:
    if dtype == torch.float16 and std > 0.2:
        pytest.skip("exceeds the range of float16")
    model = decoder(dtype, width=width, layers=layers, std=std, adapters=adapters)
    assert verify(model).startswith("attention: bidirectional in every layer")
    assert verify(model, causal=True).startswith("attention: causal in every layer")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model_type", ["gemma3_text", "gpt2", "mixtral", "ministral3", "phi3", "qwen3"])
@pytest.mark.parametrize("seed", range(2))
def test_a_random_model_of_another_architecture_passes(model_type: str, dtype: torch.dtype, seed: int) -> None:
    model = decoder(dtype, model_type, width=128, layers=6, adapters=0.1, seed=seed)
    verify(model, windowed=bool(seed))
    verify(model, causal=True, windowed=bool(seed))


@pytest.mark.parametrize("dtype", [torch.bfloat16])
@pytest.mark.parametrize(("std", "adapters"), SCALES)
@pytest.mark.parametrize(("width", "layers"), SHAPES[:3])
def test_a_random_model_passes_when_quantized_to_8_bits(
    width: int, layers: int, std: float, adapters: float, dtype: torch.dtype
) -> None:
    model = decoder(dtype, width=width, layers=layers, std=std, adapters=adapters)
    assert verify_quantization(model, lambda model: replace_linears(model, Rounded), "int8").startswith("int8: ")
