"""The decoder's linear layers, made to add the products of the batch's LoRA modules to their outputs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from l2v.models.lora.products import Products
from l2v.models.prepacking import PrepackedLinear
from l2v.models.quantization.fp8 import Fp8Linear
from l2v.models.quantization.int8 import Int8Linear

_LINEARS = (torch.nn.Linear, PrepackedLinear, Int8Linear, Fp8Linear)


class LoraLayers:
    """The linear layers of a decoder. Outside of `applying`, they compute only their own products.

    The layers' `forward` is replaced, not the layers, so that the layers keep their names and classes.

    Attributes:
        groups: the names of the layers, grouped. The layers of a group share an input, as the query, key and value
            projections do. The experts of a mixture are in no group, since they do not get every token of a batch in
            order.
        group_of: maps each layer to the first layer of its group, which identifies the group.
    """

    def __init__(self, decoder: PreTrainedModel, run: Callable[[], object]) -> None:
        """Finds the groups by one forward pass, and replaces the layers' `forward`.

        Args:
            decoder: the bare decoder.
            run: runs a batch through the decoder.
        """
        self.groups = _groups(decoder, run)
        self.group_of = {name: group[0] for group in self.groups for name in group}
        self._products: Products | None = None
        for name, group in self.group_of.items():
            layer = decoder.get_submodule(name)
            layer.forward = partial(self._forward, group, name, layer.forward)

    @contextmanager
    def applying(self, products: Products) -> Iterator[None]:
        """Adds these products in the forward passes of the block. Only one thread at a time may be in the block."""
        self._products = products
        try:
            yield
        finally:
            self._products = None

    def _forward(
        self, group: str, name: str, base: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor
    ) -> torch.Tensor:
        output = base(states)
        if self._products is not None:
            self._products.add(group, name, states, output)
        return output


def _groups(decoder: PreTrainedModel, run: Callable[[], object]) -> list[tuple[str, ...]]:
    calls: list[tuple[str, torch.Tensor]] = []

    def record(name: str) -> Callable[[torch.nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: calls.append((name, args[0]))

    layers = [(name, module) for name, module in decoder.named_modules() if isinstance(module, _LINEARS)]
    handles = [module.register_forward_pre_hook(record(name)) for name, module in layers]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _ in calls]
    tokens = max((states.shape[-2] for _, states in calls), default=0)
    groups: dict[int, list[str]] = {}
    for name, states in calls:  # `calls` keeps the inputs alive, so that no two inputs have the same id
        if names.count(name) == 1 and states.shape[:-1] == (1, tokens):
            groups.setdefault(id(states), []).append(name)
    return [tuple(group) for group in groups.values()]
