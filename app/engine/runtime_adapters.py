"""Loads and unloads adapters while the service runs."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from l2v.app import __version__
from l2v.app.engine.adapter_sources import find_source
from l2v.app.engine.errors import InvalidError, NotFoundError
from l2v.app.engine.prompts import Prompts
from l2v.app.engine.served_models import OTHER, ServedModel
from l2v.app.engine.service import Service
from l2v.models.errors import ModelError
from l2v.models.faults import Fault
from l2v.models.sources import label

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder
    from l2v.models.lora.module import LoraModule

logger = logging.getLogger(__name__)


class RuntimeAdapters:
    """Changes the adapters of an encoder, and the models that requests can choose. Runs in the engine's process.

    Args:
        service: the service before it opens. Until then, `service.prompts` holds only the configured prompts.
        encoder: the encoder.
        base: the model without adapters.
    """

    def __init__(self, service: Service, encoder: "Encoder", base: ServedModel) -> None:
        self._encoder, self._base, self._models = encoder, base, service.models
        self._settings, self._metrics = service.settings, service.metrics
        self._prompts = dict(service.prompts.by_name)
        # The values of the metrics label `model`. `_label` limits their number, since callers choose adapters' names.
        self._labels = service.models.labels
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def served(self, module: "LoraModule", source: str) -> ServedModel:
        """A loaded adapter as a model that requests can choose.

        Raises:
            ModelError: if a configured prompt or the default prompt leaves no tokens for a text.
        """
        profile = self._base.profile.with_adapter(module)
        prompts = Prompts.of(profile, self._prompts)
        return ServedModel(module.name, source, profile, prompts, self._label(module.name), module.id)

    def describe(self, model: ServedModel) -> None:
        """Shows a loaded model in the metrics."""
        self._metrics.start_model(model.label)
        self._metrics.model_info.labels(model.name, *self._device).set(1)
        self._metrics.memory.labels("adapters").set(self._encoder.adapters.nbytes)

    async def load(self, name: str, path: str) -> None:
        """Loads an adapter. If that fails, nothing changes.

        Args:
            name: the name by which requests choose the adapter.
            path: a folder below `runtime_adapters`, or a Hub id if the settings allow Hub ids.

        Raises:
            InvalidError: the name is in use, the source is not allowed, the adapter doesn't fit the base, or too many
                adapters are loaded.
        """
        source = await asyncio.to_thread(find_source, path, self._settings)
        await self._finish(self._load(name, source, path))

    async def unload(self, name: str) -> None:
        """Hides an adapter from new requests, waits for requests that use the adapter, and frees its memory.

        Raises:
            NotFoundError: no adapter has this name.
        """
        await self._finish(self._unload(name))

    async def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work, even if the caller disconnects meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _load(self, name: str, source: str, path: str) -> None:
        adapters, limit = self._encoder.adapters, self._settings.max_lora_modules
        async with self._lock:
            if name in self._models:
                raise InvalidError(f"the model {name} is already loaded: unload it first", "lora_name")
            if len(adapters.modules) >= limit:
                raise InvalidError(
                    f"{limit} adapters are loaded, which is the maximum (max_lora_modules): unload one first, or start "
                    "the service with a higher max_lora_modules",
                    "lora_name",
                )
            try:
                model = await asyncio.to_thread(self._add, name, source, path)
            except ModelError as error:
                reason = str(error).replace(source, path)  # without the path on this machine
                raise InvalidError(reason, "lora_path") from error
            except Exception as error:
                if Fault.of(error) is not Fault.OUT_OF_MEMORY:
                    raise
                raise InvalidError(
                    "the device has no memory left for it: unload an adapter first", "lora_path"
                ) from error
            self.describe(model)
            await self._models.add(model)
        logger.info("loaded an adapter", extra={"model": name, **model.profile.description["adapter"]})

    def _add(self, name: str, source: str, path: str) -> ServedModel:
        adapters = self._encoder.adapters
        module = adapters.add(name, source, max_bytes=self._settings.max_lora_bytes)
        try:
            return self.served(module, label(path))
        except ModelError:
            adapters.remove(name)
            adapters.release(module.id)
            raise

    async def _unload(self, name: str) -> None:
        async with self._lock:
            try:
                # In a thread, since `remove` waits while another call releases an adapter.
                module = await asyncio.to_thread(self._encoder.adapters.remove, name)
            except KeyError:
                loaded = ", ".join(self._encoder.adapters.modules) or "none"
                raise NotFoundError(f"there is no such adapter; adapters: {loaded}", "lora_name") from None
            self._models.hide(name)
            self._metrics.model_info.remove(name, *self._device)
        await self._models.wait_unused(module.id)
        await asyncio.to_thread(self._encoder.adapters.release, module.id)
        self._metrics.memory.labels("adapters").set(self._encoder.adapters.nbytes)
        logger.info("unloaded an adapter", extra={"model": name})

    @property
    def _device(self) -> tuple[str, str, str]:
        return self._encoder.dtype, str(self._encoder.device), __version__

    def _label(self, name: str) -> str:
        if name not in self._labels and len(self._labels) > self._settings.max_lora_modules:
            return OTHER
        self._labels.add(name)
        return name
