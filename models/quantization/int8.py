"""int8 on CPUs: about twice as fast as bfloat16 where the CPU has VNNI or AMX.

Norms, attention and residual sums stay in the model's own dtype.
"""

from typing import TYPE_CHECKING

import torch

from l2v.models.errors import UnsupportedModelError
from l2v.models.linear import replace_linears
from l2v.models.quantization.inputs import InputQuantizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# A token's inputs are scaled so that the largest becomes this. 127 is too much, since bfloat16 may round the scale and
# the product up, each by at most 1/512, and a value above 127 wraps around.
_MAX_INPUT = 126.5
# oneDNN requires unsigned inputs, so they are shifted by this.
_INPUT_ZERO_POINT = 128
# CPU capabilities. At least one of them is needed to multiply bytes without overflow.
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")


class Int8Linear(torch.nn.Module):
    """A linear layer that multiplies 8-bit integers. For inference only.

    Attributes:
        weight: [in, out] int8, in oneDNN's prepacked layout.
        weight_scale: [out] float32.
        weight_zero_point: [out] int64, all 0: weights are quantized symmetrically.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor
    weight_zero_point: torch.Tensor

    def __init__(self, linear: torch.nn.Linear, quantize_input: InputQuantizer) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1) / 127
        quantized = (weight / scale.clamp(min=torch.finfo(scale.dtype).tiny)[:, None]).round().to(torch.int8)
        self.register_buffer("weight", torch.ops.onednn.qlinear_prepack(quantized, None))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero_point", torch.zeros_like(scale, dtype=torch.int64))
        self.bias = linear.bias
        self._quantize_input = quantize_input

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, in] → […, out], in the dtype of the states."""
        values, scale = self._quantize_input(states)
        output: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            values,
            1.0,
            _INPUT_ZERO_POINT,
            self.weight,
            self.weight_scale,
            self.weight_zero_point,
            None,
            1.0,
            0,
            states.dtype,
            "none",
            [],
            "",
        )
        output.mul_(scale)
        return output if self.bias is None else output.add_(self.bias)


def quantize_rows(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[…, n] → […, n] uint8 with zero point 128, and the scale of each row, […, 1], in the dtype of the states."""
    scale = (states.abs().amax(-1, keepdim=True).float() / _MAX_INPUT).clamp_(min=1e-30)
    values = (states * scale.reciprocal().to(states.dtype)).round_().to(torch.int8)
    # Flipping the sign bit adds 128.
    return values.view(torch.uint8).bitwise_xor_(_INPUT_ZERO_POINT), scale.to(states.dtype)


def available(device: torch.device) -> bool:
    """Whether the device has fast products of 8-bit integers."""
    return device.type == "cpu" and any(map(torch.cpu.get_capabilities().get, _INSTRUCTIONS))


def quantize(model: "PreTrainedModel") -> None:
    """Replaces the linear layers of a model on the CPU by `Int8Linear`.

    Raises:
        UnsupportedModelError: if the CPU has no fast products of 8-bit integers.
    """
    if not available(model.device):
        raise UnsupportedModelError("dtype int8 requires a CPU with VNNI or AMX: use auto")
    quantize_input = InputQuantizer(quantize_rows)
    replace_linears(model, lambda linear: Int8Linear(linear, quantize_input))
