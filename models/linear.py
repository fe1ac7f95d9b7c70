"""Replaces a model's linear layers with quantized or prepacked ones, for inference only."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from l2v.models.allocator import unmap_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def replace_linears(model: "PreTrainedModel", build: Callable[[torch.nn.Linear], torch.nn.Module]) -> None:
    """Replaces each linear layer with `build(layer)`, and frees each layer's weights before the next is built."""
    # A list of the layers themselves would keep their weights alive.
    slots = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear
    ]
    for parent, name in slots:
        setattr(parent, name, build(getattr(parent, name)))
    unmap_weights(model)
