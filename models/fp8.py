"""fp8 on CUDA: weights of 8 bits (E4M3) with a scale for each output, inputs of 8 bits with a scale for each token.

GPUs from Ada and Hopper on have such products at twice the rate of bfloat16's. Norms, attention and the sums between
layers stay in bfloat16.
"""

from functools import partial

import torch
from transformers import PreTrainedModel

from l2v.models.errors import UnsupportedModelError
from l2v.models.packing import replace_linears
from l2v.models.rounding import Rounding

# What the largest number of a token becomes. From 464 on it would be NaN, which no rounding on the way reaches.
_LARGEST = 448.0
# Both sides of a weight must be multiples of this, or there are no such products.
_MULTIPLE = 16
# Up to so many tokens, cuBLAS has no products of long rows that are scaled row by row (pytorch/ao issue 4582): these
# are scaled behind the product, which for so few costs nothing.
_FEW = 256
# Compute capability of Ada, the first that has them.
_FIRST = (8, 9)


class Fp8Linear(torch.nn.Module):
    """A linear layer whose products are of 8-bit floating point. Not differentiable.

    Attributes:
        packed: [in, out] float8_e4m3fn, column by column.
        scale: [1, out] float32.
    """

    packed: torch.Tensor
    scale: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, rounding: Rounding) -> None:
        super().__init__()
        rows, scale = rounded(linear.weight.detach())
        self.register_buffer("packed", rows.t())
        self.register_buffer("scale", scale.t())
        self.bias = linear.bias
        self._rounding = rounding

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, in] → […, out], in the dtype of the states."""
        numbers, step = (part.flatten(0, -2) for part in self._rounding(states))
        products: torch.Tensor = fp8_product(numbers, self.packed, step, self.scale, states.dtype)
        products = products.view(*states.shape[:-1], -1)
        return products if self.bias is None else products + self.bias


@torch.library.custom_op("l2v::fp8_product", mutates_args=())
def fp8_product(
    numbers: torch.Tensor, packed: torch.Tensor, step: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """[T, in] and [in, out] float8_e4m3fn → [T, out], times `step` [T, 1] and `scale` [1, out], both float32.

    An opaque op, so that the choice below is none of the compiler's.
    """
    multiply = partial(torch._scaled_mm, out_dtype=dtype, use_fast_accum=True)  # noqa: SLF001 - its public names differ
    if len(numbers) > _FEW:
        return multiply(numbers, packed, step, scale)
    one = step.new_ones(())
    return multiply(numbers, packed, one, one).mul_(step).mul_(scale)


@fp8_product.register_fake
def _(
    numbers: torch.Tensor, packed: torch.Tensor, step: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    return numbers.new_empty(numbers.shape[0], packed.shape[1], dtype=dtype)


def rounded(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[…, n] → […, n] float8_e4m3fn, and the step of each row, […, 1] float32."""
    largest = torch.linalg.vector_norm(states, torch.inf, dim=-1, keepdim=True).clamp(min=1e-30)
    factor = (_LARGEST / largest.float()).to(states.dtype)
    return (states * factor).to(torch.float8_e4m3fn), factor.float().reciprocal()


def available(device: torch.device) -> bool:
    """Whether the device has such products."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FIRST


def quantize(model: PreTrainedModel) -> None:
    """Puts an `Fp8Linear` in place of each linear layer of a model on CUDA.

    Raises:
        UnsupportedModelError: if this device has no such products, or the model layers that they cannot be made of.
    """
    if not available(model.device):
        raise UnsupportedModelError("dtype fp8 is for GPUs from Ada or Hopper on: use auto")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and any(side % _MULTIPLE for side in module.weight.shape):
            raise UnsupportedModelError(
                f"dtype fp8 needs layers whose sides are multiples of {_MULTIPLE}, and {name} is of "
                f"{list(module.weight.shape)}: use auto"
            )
    rounding = Rounding(rounded)
    replace_linears(model, lambda linear: Fp8Linear(linear, rounding))
    torch.cuda.empty_cache()  # of the weights that these took the place of
