"""The low-rank products of one batch, added in place to the outputs of linear layers.

A batch's rows are sorted by LoRA module, so each module has one slice of tokens. A low-rank product is two products,
with a first and a second factor. Layers that have the same input share the first product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from weakref import ref

import torch

from l2v.models.lora.storage import JoinedFactors, Weights

# In 16 bits, oneDNN compiles a kernel for each number of tokens, which takes longer than the product itself. So slices
# are cut into blocks of these sizes, in tokens, and batches smaller than any block are multiplied in float32. A small
# product spends most of its time on the call, so a few large blocks are faster than many small ones.
_BLOCKS = (1024, 256, 128, 64)


class Products(Protocol):
    """The interface that the linear layers call."""

    def add(self, group: str, layer: str, states: torch.Tensor, output: torch.Tensor) -> None:
        """Adds the products of a layer.

        Args:
            group: the name of the first of the layers that share the input `states`.
            layer: the layer's name.
            states: [1, T, in], the layer's input.
            output: [1, T, out], the base's product. It is changed in place.
        """


@dataclass(frozen=True, slots=True)
class Block:
    """Tokens that one product covers.

    Attributes:
        start, stop: the bounds of the tokens.
        first, last: the bounds of the module's own tokens, counted from `start`.
        weights: the module's weights.
    """

    start: int
    stop: int
    first: int
    last: int
    weights: Weights


# Start and end of the tokens of a module, and its weights.
Slice = tuple[int, int, Weights]


class BlockProducts:
    """Computes the products block by block, on any device.

    Args:
        slices: the tokens and the weights of each module.
        tokens: the number of tokens of the batch.
        dtype: the model's dtype.
        device: the model's device.
    """

    def __init__(self, slices: Sequence[Slice], tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        compiled = _compiles_shapes(device, dtype)
        self._widen = compiled and tokens < _BLOCKS[-1]
        if compiled and not self._widen:
            self._blocks = [block for slice_ in slices for block in _cut(*slice_, tokens)]
        else:
            self._blocks = [Block(start, stop, 0, stop - start, weights) for start, stop, weights in slices]
        self._input: ref[torch.Tensor] | None = None
        self._hidden: list[tuple[Block, JoinedFactors, torch.Tensor]] = []

    def add(self, group: str, layer: str, states: torch.Tensor, output: torch.Tensor) -> None:
        if self._input is None or self._input() is not states:
            self._hidden, self._input = self._reduce(group, states[0]), ref(states)
        rows = output[0]
        for block, factors, hidden in self._hidden:
            if second := factors.b.get(layer):
                columns, b = second
                part = rows[block.start : block.stop]
                if self._widen:
                    part += hidden[:, columns] @ b.float()
                else:
                    part.addmm_(hidden[:, columns], b)

    def _reduce(self, group: str, states: torch.Tensor) -> list[tuple[Block, JoinedFactors, torch.Tensor]]:
        """The first products, [block, ranks]. Tokens of a block that belong to other modules get zeros."""
        reduced = []
        for block in self._blocks:
            if factors := block.weights.get(group):
                rows = states[block.start : block.stop]
                hidden = rows.float() @ factors.a.float() if self._widen else rows @ factors.a
                if block.first:
                    hidden[: block.first] = 0
                if block.last < len(hidden):
                    hidden[block.last :] = 0
                reduced.append((block, factors, hidden))
        return reduced


def _compiles_shapes(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype != torch.float32


def _cut(start: int, stop: int, weights: Weights, tokens: int) -> list[Block]:
    """Cuts a slice into blocks. A block may cover tokens of other modules, but does not extend past the batch."""
    sizes = [size for size in _BLOCKS if size <= tokens]
    blocks = []
    while start < stop:
        # The largest block that would be at least half full.
        size = next((size for size in sizes if size <= 2 * (stop - start)), sizes[-1])
        first = min(start, tokens - size)
        last = min(stop, first + size)
        blocks.append(Block(first, first + size, start - first, last - first, weights))
        start = last
    return blocks


@dataclass(frozen=True, slots=True)
class Stack:
    """The factors of several modules for the layers that share an input, padded to the same ranks.

    Attributes:
        a: [modules, in, sum of the ranks], the first factors.
        b: for each layer, its columns of the first product, and the second factors [modules, rank, out].
    """

    a: torch.Tensor
    b: dict[str, tuple[slice, torch.Tensor]]


def stack(modules: Sequence[Weights], device: torch.device) -> dict[str, Stack]:
    """Stacks the modules' padded weights in the given order. A key is the first of the layers that share an input."""
    stacks = {}
    for group in dict.fromkeys(group for weights in modules for group in weights):
        found = [weights.get(group) for weights in modules]
        shapes: dict[str, tuple[int, int]] = {}
        for factors in filter(None, found):
            for layer, (_, second) in factors.b.items():
                rank, width = second.shape
                shapes[layer] = max(rank, shapes.get(layer, (0, 0))[0]), width
        some = next(filter(None, found)).a
        a = some.new_zeros(len(modules), len(some), sum(rank for rank, _ in shapes.values()))
        b, start = {}, 0
        for layer, (rank, width) in shapes.items():
            seconds = some.new_zeros(len(modules), rank, width)
            for index, module in enumerate(found):
                if module and layer in module.b:
                    columns, second = module.b[layer]
                    a[index, :, start : start + len(second)] = module.a[:, columns]
                    seconds[index, : len(second)] = second
            b[layer] = slice(start, start + rank), seconds.to(device)
            start += rank
        stacks[group] = Stack(a.to(device), b)
    return stacks


class GroupedProducts:
    """Computes the products of all modules in few calls, for GPUs, where each call launches a kernel.

    A grouped product multiplies each module's tokens by that module's factor, in one call. Layers that share an input
    share the first grouped product; each layer has a second one.

    Args:
        stacks: the stacks of all modules.
        ends: [modules] int32, the end of each module's tokens, counted from `start`; a module without tokens has
            the end of the module before it.
        start: the index of the first token that has a module.
    """

    def __init__(self, stacks: dict[str, Stack], ends: torch.Tensor, start: int) -> None:
        self._stacks, self._ends, self._start = stacks, ends, start
        self._input: ref[torch.Tensor] | None = None
        self._hidden: torch.Tensor

    def add(self, group: str, layer: str, states: torch.Tensor, output: torch.Tensor) -> None:
        found = self._stacks.get(group)
        if found is None or layer not in found.b:
            return
        multiply = torch.nn.functional.grouped_mm
        if self._input is None or self._input() is not states:
            self._hidden, self._input = multiply(states[0, self._start :], found.a, offs=self._ends), ref(states)
        columns, b = found.b[layer]
        output[0, self._start :] += multiply(self._hidden[:, columns], b, offs=self._ends)
