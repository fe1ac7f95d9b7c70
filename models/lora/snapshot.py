"""The LoRA modules that are loaded at one time, and the products that they add to a batch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

import torch

from l2v.models.batch import Batch
from l2v.models.errors import AdapterError
from l2v.models.lora.module import LoraModule
from l2v.models.lora.products import BlockProducts, GroupedProducts, Products, Stack, stack
from l2v.models.lora.storage import Weights


@dataclass(frozen=True)
class Loaded:
    """A module and its weights.

    The weights are on the CPU if the snapshot has stacks of weights on the device, else on the device.
    """

    module: LoraModule
    weights: Weights = field(repr=False)


@dataclass(frozen=True)
class Snapshot:
    """The loaded modules. Each change makes a new snapshot, so a batch keeps the modules that it began with.

    Attributes:
        listed: the modules that requests can name.
        loaded: the modules by id, in ascending order, including removed ones until they are released.
        stacks: the weights of all loaded modules, on the device, for grouped products; empty if the device multiplies
            the tokens of each module separately.
    """

    listed: Mapping[str, LoraModule] = field(default_factory=dict)
    loaded: Mapping[int, Loaded] = field(default_factory=dict)
    stacks: dict[str, Stack] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(loaded.module.nbytes for loaded in self.loaded.values())

    def with_module(self, loaded: Loaded, stacked_on: torch.device | None) -> "Snapshot":
        """Lists one more module, whose id is the highest so far.

        Args:
            loaded: the module.
            stacked_on: the device of the stacks of weights; None if there are no stacks.
        """
        module = loaded.module
        listed, by_id = {**self.listed, module.name: module}, {**self.loaded, module.id: loaded}
        return Snapshot(listed, by_id, _stacks(by_id, stacked_on))

    def with_evidence(self, module: LoraModule) -> "Snapshot":
        """Replaces the description of a module, but not its weights."""
        loaded = Loaded(module, self.loaded[module.id].weights)
        return replace(self, listed={**self.listed, module.name: module}, loaded={**self.loaded, module.id: loaded})

    def without_name(self, name: str) -> "Snapshot":
        return replace(self, listed={other: module for other, module in self.listed.items() if other != name})

    def without_id(self, id_: int) -> "Snapshot":
        by_id = {other: loaded for other, loaded in self.loaded.items() if other != id_}
        stacked_on = next((stack.a.device for stack in self.stacks.values()), None)
        return Snapshot(self.listed, by_id, _stacks(by_id, stacked_on))

    def products(self, batch: Batch, dtype: torch.dtype) -> Products:
        """The products of a batch. Its rows must be sorted by module, and at least one row must name a module.

        Raises:
            AdapterError: if a row names a module that is not loaded.
        """
        if unknown := next((id_ for id_ in batch.adapters if id_ and id_ not in self.loaded), None):
            raise AdapterError(f"adapter {unknown} of a row is not loaded")
        bounds, slices, row = batch.cu_seqlens_cpu.tolist(), {}, 0
        for id_, rows in groupby(batch.adapters):
            start, row = row, row + len(list(rows))
            slices[id_] = bounds[start], bounds[row]
        slices.pop(0, None)
        if not self.stacks:
            parts = [(start, stop, self.loaded[id_].weights) for id_, (start, stop) in slices.items()]
            return BlockProducts(parts, bounds[-1], dtype, batch.input_ids.device)
        first = min(start for start, _ in slices.values())
        ends, end = [], 0
        for id_ in self.loaded:
            end = slices[id_][1] - first if id_ in slices else end
            ends.append(end)
        return GroupedProducts(self.stacks, batch.place(torch.tensor(ends, dtype=torch.int32)), first)


def _stacks(loaded: Mapping[int, Loaded], device: torch.device | None) -> dict[str, Stack]:
    return stack([each.weights for each in loaded.values()], device) if device and loaded else {}
