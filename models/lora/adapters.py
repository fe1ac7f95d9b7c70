"""The LoRA modules of an encoder: adds modules, removes them, and applies them to batches."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedModel

from l2v.models.batch import Batch
from l2v.models.declaration import Declaration
from l2v.models.errors import AdapterError, UnsupportedModelError
from l2v.models.lora import probe
from l2v.models.lora.layers import LoraLayers
from l2v.models.lora.module import LoraModule
from l2v.models.lora.reading import ModuleReader
from l2v.models.lora.snapshot import Loaded, Snapshot
from l2v.models.lora.storage import join, nbytes
from l2v.models.sources import label
from l2v.models.types import Pooling

logger = logging.getLogger(__name__)

# Compute capability of Hopper, the first architecture on which a grouped product is one kernel launch.
_GROUPED_CAPABILITY = 9


class Adapters:
    """The LoRA modules of an encoder.

    `add`, `remove` and `release` may be called in any thread, while another thread computes batches.

    Args:
        decoder: the bare decoder that computes batches.
        declaration: how the model is served without modules.
        reader: reads modules from their files.
    """

    def __init__(self, decoder: PreTrainedModel, declaration: Declaration, reader: ModuleReader) -> None:
        self._decoder, self._declaration, self._reader = decoder, declaration, reader
        self._snapshot = Snapshot()
        self._last_id = 0
        self._layers: LoraLayers | None = None
        self._changing = threading.Lock()
        # Each forward pass holds this lock, so that the probe of a new module runs between two batches.
        self._computing = threading.Lock()

    def __len__(self) -> int:
        return len(self._snapshot.listed)

    @property
    def modules(self) -> Mapping[str, LoraModule]:
        """The modules by name, as they are now."""
        return MappingProxyType(self._snapshot.listed)

    @property
    def nbytes(self) -> int:
        """Size of the weights on the device, including modules that were removed but not released."""
        return self._snapshot.nbytes

    def describe(self) -> list[dict[str, Any]]:
        """The properties of each module, for `/info`."""
        return [module.describe() for module in self._snapshot.listed.values()]

    def add(self, name: str, source: str, *, max_bytes: int | None = None) -> LoraModule:
        """Reads, checks and lists a module. If this raises an error, the modules stay as they were.

        Args:
            name: the module's name, which no listed module may have.
            source: a Hub id (`id` or `id@revision`), downloaded if it is not in the local cache, or a folder.
            max_bytes: the maximum size of all modules together, in bytes.

        Raises:
            ModelError: if the module cannot be read, does not fit, must be merged, has no effect, or is too large.
        """
        with self._changing:
            if not name or name in self._snapshot.listed:
                raise AdapterError(f"there is already an adapter {name}" if name else "an adapter needs a name")
            read = self._reader.read(name, source, self._last_id + 1, self._decoder)
            layers = self._install()
            if apart := next((layer for layer in read.factors if layer not in layers.group_of), None):
                raise AdapterError(
                    f"adapter {name} changes {apart}, which does not get every token of a batch: merge the adapter "
                    "instead (`adapters`), in a separate service"
                )
            grouped, device, dtype = self._grouped(), self._decoder.device, self._decoder.dtype
            size = nbytes(read.factors, dtype, padded=grouped)
            if max_bytes is not None and self.nbytes + size > max_bytes:
                raise AdapterError(
                    f"adapter {name} needs {size:,} bytes, but {self.nbytes:,} of {max_bytes:,} are taken "
                    "(max_lora_bytes): unload another adapter first, or start the service with a higher max_lora_bytes"
                )
            held = torch.device("cpu") if grouped else device
            weights = join(name, read.factors, layers.groups, held, dtype, padded=grouped)
            module = replace(read.module, nbytes=size)
            snapshot = self._snapshot.with_module(Loaded(module, weights), device if grouped else None)
            with self._computing:
                evidence = probe.check(
                    name,
                    module.id,
                    read.factors,
                    self._decoder,
                    self._declaration,
                    layers,
                    lambda batch: snapshot.products(batch, dtype),
                )
            module = replace(module, evidence=f"adapter {name}: {label(source)} (for {read.base}) {evidence}")
            self._snapshot, self._last_id = snapshot.with_evidence(module), module.id
        logger.info("added an adapter", extra={"adapter": name, "bytes": module.nbytes})
        return module

    def remove(self, name: str) -> LoraModule:
        """Unlists a module, but keeps its weights for existing encodings until `release`.

        Raises:
            KeyError: if no listed module has the name.
        """
        with self._changing:
            module = self._snapshot.listed[name]
            self._snapshot = self._snapshot.without_name(name)
        return module

    def release(self, id_: int) -> None:
        """Frees the weights of a removed module. A batch that is being computed keeps them until it is done."""
        with self._changing:
            self._snapshot = self._snapshot.without_id(id_)

    @contextmanager
    def applied(self, batch: Batch) -> Iterator[None]:
        """Makes forward passes in the block apply each row's module to that row. Rows must be sorted by module.

        Raises:
            AdapterError: if a row names a module that is not loaded.
        """
        with self._computing:
            if not any(batch.adapters):
                yield
                return
            products = self._snapshot.products(batch, self._decoder.dtype)
            with self._layers.applying(products) if self._layers else nullcontext():
                yield

    def pooling(self, id_: int) -> Pooling:
        """The pooling of a module that is loaded."""
        return self._snapshot.loaded[id_].module.declaration.pooling.value

    def _install(self) -> LoraLayers:
        """The layers that add modules' products to the decoder's products. The first call installs them.

        Raises:
            UnsupportedModelError: if the decoder's layers are compiled.
        """
        if any(module._compiled_call_impl for module in self._decoder.modules()):  # noqa: SLF001 - `Module.compile` sets it
            raise UnsupportedModelError("adapters cannot be added to compiled layers: start without `compile`")
        if self._layers is None:
            with self._computing, torch.inference_mode():
                self._layers = LoraLayers(self._decoder, lambda: probe.run(self._decoder, self._declaration))
        return self._layers

    def _grouped(self) -> bool:
        """Whether the device supports grouped products for the model."""
        device = self._decoder.device
        if device.type != "cuda" or torch.version.hip or self._decoder.dtype != torch.bfloat16:
            return False
        return torch.cuda.get_device_properties(device).major >= _GROUPED_CAPABILITY
