"""Linear layers whose weights lie as oneDNN multiplies them on the CPU: laid out once, not again for each product.

The same numbers as before, and up to twice as fast where few tokens come (docs/PERFORMANCE.md).
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from l2v.models.allocator import own_memory


class PackedLinear(torch.nn.Module):
    """A linear layer for inference alone: what it holds can be neither trained, saved nor compiled.

    Attributes:
        packed: [out, in], in oneDNN's own layout.
    """

    packed: torch.Tensor

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        # What torch's own compiler calls for weights that stay as they are.
        self.register_buffer("packed", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach()))  # noqa: SLF001
        self.bias = linear.bias

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """[…, in] → […, out]."""
        multiply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
        products: torch.Tensor = multiply(states, self.packed, self.bias, "none", [], "")
        return products


def pack(model: PreTrainedModel) -> None:
    """Packs the weights of a model, where its device and dtype have such a layout; else nothing changes."""
    if model.device.type == "cpu" and available(model.dtype):
        replace_linears(model, PackedLinear)


def available(dtype: torch.dtype) -> bool:
    """Whether this CPU has such a layout for it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001
    return dtype == torch.float32


def replace_linears(model: PreTrainedModel, make: Callable[[torch.nn.Linear], torch.nn.Module]) -> None:
    """Puts what `make` gives in place of each linear layer; what it takes the place of goes at once."""
    # Not the layers themselves, which the list would keep.
    places = [
        (m, name) for m in model.modules() for name, child in m.named_children() if type(child) is torch.nn.Linear
    ]
    for module, name in places:
        setattr(module, name, make(getattr(module, name)))
    own_memory(model)
