"""Loads and unloads adapters while the service runs."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from l2v.app import __version__
from l2v.app.engine.adapter_sources import find_source
from l2v.app.engine.errors import InvalidError, NotFoundError
from l2v.app.engine.prompts import Prompts
from l2v.app.engine.served_models import OTHER, ServedModel, ServedModels
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.models.errors import ModelError
from l2v.models.sources import label

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder
    from l2v.models.lora.module import LoraModule

logger = logging.getLogger(__name__)


class RuntimeAdapters:
    """Changes the adapters of an encoder, and the models that requests can choose. Lives in the engine's process.

    Args:
        encoder: the encoder.
        base: the base of the adapters.
        models: the models that requests can choose.
        prompts: the named prompts of the settings, by name.
        settings: where adapters may come from, and how many there may be.
        metrics: describes the loaded models.
    """

    def __init__(
        self,
        encoder: "Encoder",
        base: ServedModel,
        models: ServedModels,
        prompts: dict[str, str],
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._encoder, self._base, self._models = encoder, base, models
        self._prompts, self._settings, self._metrics = prompts, settings, metrics
        # The values of the label `model`. Names that callers choose don't extend it without limit.
        self._labels = models.labels
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def served(self, module: "LoraModule", source: str) -> ServedModel:
        """A loaded adapter as a model that requests can choose.

        Raises:
            ModelError: if a prompt that is used without being named leaves no room for a text.
        """
        prompts = Prompts.of(self._base.profile.with_adapter(module), self._prompts)
        return self._base.with_adapter(module, prompts, source, self._label(module.name))

    def describe(self, model: ServedModel) -> None:
        """Shows a loaded model in the metrics."""
        self._metrics.start_model(model.label)
        self._metrics.model_info.labels(model.name, *self._device).set(1)
        self._metrics.memory.labels("adapters").set(self._encoder.adapters.nbytes)

    async def load(self, name: str, path: str) -> None:
        """Loads an adapter, or fails and changes nothing.

        Args:
            name: the name by which requests choose it.
            path: a folder below `runtime_adapters`, or a Hub id if the settings allow it.

        Raises:
            InvalidError: the name is in use, the source is not allowed, the adapter doesn't fit, or there are too many.
        """
        source = find_source(path, self._settings)
        await self._finish(self._load(name, source, path))

    async def unload(self, name: str) -> None:
        """Hides an adapter from new requests, waits for those that use it, and frees its memory.

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
                    f"{limit} adapters are loaded, the maximum (max_lora_modules): unload another first, or start the "
                    "service with a higher max_lora_modules",
                    "lora_name",
                )
            try:
                model = await asyncio.to_thread(self._add, name, source, path)
            except ModelError as error:
                reason = str(error).replace(source, path)  # without the path on this machine
                raise InvalidError(reason, "lora_path") from error
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
                module = self._encoder.adapters.remove(name)
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
