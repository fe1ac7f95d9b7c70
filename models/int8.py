"""int8 on the CPU: weights of 8 bits with a scale for each output, inputs of 8 bits with a scale for each token.

Known as W8A8 with dynamic scales. Products of integers are twice as fast as in bfloat16 where the CPU has VNNI. Norms,
attention and the sums between layers stay in the model's own dtype.
"""

import torch
from transformers import PreTrainedModel

from l2v.models.errors import UnsupportedModelError
from l2v.models.packing import replace_linears
from l2v.models.rounding import Rounding

# What the largest number of a token becomes. Beyond 127 it would wrap around, which the roundings of its factor and of
# their product must not reach: each adds up to 1/512 in bfloat16.
_LARGEST = 126.5
# What oneDNN takes for zero: its inputs are unsigned.
_ZERO = 128
# The CPU needs one of these to multiply bytes without overflow.
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")


class Int8Linear(torch.nn.Module):
    """A linear layer whose products are of 8-bit integers. Not differentiable.

    Attributes:
        packed: [in, out] int8, as oneDNN lays it out; each output's weights have a scale of their own.
    """

    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, rounding: Rounding) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1) / 127
        rows = (weight / scale.clamp(min=torch.finfo(scale.dtype).tiny)[:, None]).round().to(torch.int8)
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(rows, None))
        self.register_buffer("scale", scale)
        self.register_buffer("zero", torch.zeros_like(scale, dtype=torch.int64))
        self.bias = linear.bias
        self._rounding = rounding

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, in] → […, out], in the dtype of the states."""
        numbers, step = self._rounding(states)
        products: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            numbers, 1.0, _ZERO, self.packed, self.scale, self.zero, None, 1.0, 0, states.dtype, "none", [], ""
        )
        products.mul_(step)
        return products if self.bias is None else products.add_(self.bias)


def rounded(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[…, n] → […, n] uint8 around 128, and the step of each row, […, 1] in the states' dtype."""
    step = (states.abs().amax(-1, keepdim=True).float() / _LARGEST).clamp_(min=1e-30)
    numbers = (states * step.reciprocal().to(states.dtype)).round_().to(torch.int8)
    # Adds 128: flips the sign's bit.
    return numbers.view(torch.uint8).bitwise_xor_(_ZERO), step.to(states.dtype)


def available(device: torch.device) -> bool:
    """Whether the device multiplies 8-bit integers faster than anything else."""
    return device.type == "cpu" and any(map(torch.cpu.get_capabilities().get, _INSTRUCTIONS))


def quantize(model: PreTrainedModel) -> None:
    """Puts an `Int8Linear` in place of each linear layer of a model on the CPU.

    Raises:
        UnsupportedModelError: if this device has no fast products of such integers.
    """
    if not available(model.device):
        raise UnsupportedModelError("dtype int8 is for CPUs with VNNI or AMX: use auto")
    rounding = Rounding(rounded)
    replace_linears(model, lambda linear: Int8Linear(linear, rounding))
