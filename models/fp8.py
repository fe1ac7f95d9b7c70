"""fp8 on CUDA: weights of 8 bits (E4M3) with a scale for each output, inputs of 8 bits with a scale for each token.

GPUs from Ada and Hopper on have such products at twice the rate of bfloat16's. Norms, attention and the sums between
layers stay in bfloat16.
"""

import torch
from transformers import PreTrainedModel

from models.errors import UnsupportedModelError
from models.packing import replace_linears
from models.rounding import Rounding

# What the largest number of a token becomes. From 464 on it would be NaN, which no rounding on the way reaches.
_LARGEST = 448.0
# Of which the sides of a weight are multiples, or there are no such products.
_MULTIPLE = 16
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
        products: torch.Tensor = torch._scaled_mm(  # noqa: SLF001 - public names of it differ between versions
            numbers, self.packed, step, self.scale, out_dtype=states.dtype, use_fast_accum=True
        )
        products = products.view(*states.shape[:-1], -1)
        return products if self.bias is None else products + self.bias


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
