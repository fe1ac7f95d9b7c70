"""fp8 (E4M3) on CUDA. Ada, Hopper and newer GPUs multiply fp8 numbers twice as fast as bfloat16 numbers.

Norms, attention and residual sums stay in bfloat16.
"""

from functools import partial
from typing import TYPE_CHECKING

import torch

from l2v.models.errors import UnsupportedModelError
from l2v.models.linear import replace_linears
from l2v.models.quantization.inputs import InputQuantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Rows are scaled so that their largest number becomes this, the largest number in E4M3. Rounding may raise a number
# slightly above it, but never to 464, where the conversion starts to give NaN.
_MAX_VALUE = 448.0
# The kernels require both dimensions of a weight to be multiples of this.
_MULTIPLE = 16
# Up to this many tokens, cuBLAS has no row-wise scaled product for long rows (pytorch/ao issue 4582). The scales are
# applied after the product instead, which costs next to nothing for so few tokens.
_FEW_TOKENS = 256
# Compute capability of Ada, the first architecture that multiplies fp8.
_MIN_CAPABILITY = (8, 9)


class Fp8Linear(torch.nn.Module):
    """A linear layer that multiplies 8-bit floats. For inference only.

    Attributes:
        weight: [in, out] float8_e4m3fn, column-major.
        weight_scale: [1, out] float32.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, quantize_input: InputQuantizer) -> None:
        super().__init__()
        weight, scale = quantize_rows(linear.weight.detach())
        self.register_buffer("weight", weight.t())
        self.register_buffer("weight_scale", scale.t())
        self.bias = linear.bias
        self._quantize_input = quantize_input

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, in] → […, out], in the dtype of the states."""
        values, scale = (part.flatten(0, -2) for part in self._quantize_input(states))
        output: torch.Tensor = fp8_product(values, self.weight, scale, self.weight_scale, states.dtype)
        output = output.view(*states.shape[:-1], -1)
        return output if self.bias is None else output + self.bias


@torch.library.custom_op("l2v::fp8_product", mutates_args=())
def fp8_product(
    values: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, weight_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """The scaled product of quantized inputs and weights.

    This is an opaque op, so that the compiler does not trace the branch on the number of tokens.

    Args:
        values: [T, in] float8_e4m3fn.
        weight: [in, out] float8_e4m3fn.
        scale: [T, 1] float32, the scales of the values.
        weight_scale: [1, out] float32.
        dtype: the dtype of the output.

    Returns:
        [T, out].
    """
    multiply = partial(torch._scaled_mm, out_dtype=dtype, use_fast_accum=True)  # noqa: SLF001 - its public name depends on the release
    if len(values) > _FEW_TOKENS:
        return multiply(values, weight, scale, weight_scale)
    one = scale.new_ones(())
    return multiply(values, weight, one, one).mul_(scale).mul_(weight_scale)


@fp8_product.register_fake
def _(
    values: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, weight_scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    return values.new_empty(values.shape[0], weight.shape[1], dtype=dtype)


def quantize_rows(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[…, n] → […, n] float8_e4m3fn, and the scale of each row, […, 1] float32."""
    largest = torch.linalg.vector_norm(states, torch.inf, dim=-1, keepdim=True).clamp(min=1e-30)
    factor = (_MAX_VALUE / largest.float()).to(states.dtype)
    return (states * factor).to(torch.float8_e4m3fn), factor.float().reciprocal()


def available(device: torch.device) -> bool:
    """Whether the device has fp8 products."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _MIN_CAPABILITY


def quantize(model: "PreTrainedModel") -> None:
    """Replaces the linear layers of a model on CUDA by `Fp8Linear`.

    Raises:
        UnsupportedModelError: if the GPU has no fp8 products, or cannot multiply layers of these dimensions.
    """
    if not available(model.device):
        raise UnsupportedModelError("dtype fp8 requires an Ada, Hopper or newer GPU: use auto")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and any(size % _MULTIPLE for size in module.weight.shape):
            raise UnsupportedModelError(
                f"dtype fp8 requires layer dimensions that are multiples of {_MULTIPLE}, but {name} is "
                f"{list(module.weight.shape)}: use auto"
            )
    quantize_input = InputQuantizer(quantize_rows)
    replace_linears(model, lambda linear: Fp8Linear(linear, quantize_input))
    torch.cuda.empty_cache()  # return the memory of the replaced weights
