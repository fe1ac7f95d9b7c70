"""Linear layers on the CPU with weights in oneDNN's own layout, converted once instead of at every product.

The results are the same; small batches run up to twice as fast (docs/performance.md).
"""

import torch
from transformers import PreTrainedModel

from l2v.models.linear import replace_linears


class PrepackedLinear(torch.nn.Module):
    """A linear layer for inference only: its weight cannot be trained, saved or compiled.

    Attributes:
        weight: [out, in], in oneDNN's layout.
    """

    weight: torch.Tensor

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        # The op that torch's compiler uses for frozen weights.
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()))  # noqa: SLF001
        self.bias = linear.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, in] → […, out]."""
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        output: torch.Tensor = multiply(states, self.weight, self.bias, "none", [], "")
        return output


def prepack(model: PreTrainedModel) -> None:
    """Prepacks a model's linear layers, if oneDNN has a layout for its device and dtype."""
    if model.device.type == "cpu" and available(model.dtype):
        replace_linears(model, PrepackedLinear)


def available(dtype: torch.dtype) -> bool:
    """Whether oneDNN has a layout for this dtype on this CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    return dtype == torch.float32
