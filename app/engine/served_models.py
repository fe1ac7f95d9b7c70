"""The models that requests choose by name: the base, and the adapters that are served on top of the base."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from l2v.app.engine.errors import NotFoundError, UnavailableError
from l2v.app.engine.profile import Profile
from l2v.app.engine.prompts import Prompts
from l2v.app.settings import Settings
from l2v.models.sources import label

# How long callers should wait while the model is loading.
LOADING_SECONDS = 5
# The value of the metrics label `model` for adapters that have no value of their own.
OTHER = "other"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that requests can choose. Instances can be pickled.

    Attributes:
        name: the model's name.
        source: the model's origin: a Hub id, or the name of a folder.
        profile: the model's properties.
        prompts: the model's named prompts.
        label: the value of the label `model` in metrics.
        id: the adapter's id; 0 for the base.
    """

    name: str
    source: str
    profile: Profile
    prompts: Prompts
    label: str
    id: int = 0

    def describe(self) -> dict[str, Any]:
        """The properties of the model, for `/info`."""
        return {"model": self.name, **self.profile.description}


class ServedModels:
    """The models by name. Used only from the event loop, except that a thread may call `open`.

    Args:
        settings: all settings, which name the base and the first adapters.

    Attributes:
        base_name: the name of the base.
        sources: maps each name of each model to the model's source. The mapping is known even while models load.
        strict: whether unknown names are rejected. A service that can only have one model accepts any name.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = settings.base_names
        self.base_name = self._names[0]
        self.sources = dict.fromkeys(self._names, label(settings.model))
        self.sources |= {name: label(source) for name, source in settings.lora_modules.items()}
        self.strict = bool(settings.lora_modules) or settings.runtime_adapters is not None
        self._models: dict[str, ServedModel] = {}
        self._uses: Counter[int] = Counter()
        self._idle: dict[int, asyncio.Event] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a model has this name, even if that model is still loading."""
        return name in self.sources

    def is_adapter(self, name: str) -> bool:
        """Whether the model with this name is an adapter on top of the base."""
        return name not in self._names

    @property
    def labels(self) -> set[str]:
        """The values of the metrics label `model` that are known at the start."""
        return {self.base_name, *(self.sources.keys() - set(self._names))}

    def __iter__(self) -> Iterator[ServedModel]:
        """The loaded models, the base first. A model with several names appears only once."""
        return iter({model.name: model for model in self._models.values()}.values())

    def open(self, models: Sequence[ServedModel]) -> None:
        """Makes the loaded models available: the base, then the adapters."""
        base, *adapters = models
        self.strict |= bool(adapters)
        self.sources = dict.fromkeys(self._names, base.source) | {model.name: model.source for model in adapters}
        self._models = dict.fromkeys(self._names, base) | {model.name: model for model in adapters}

    def find(self, name: str | None = None) -> ServedModel:
        """The model that a request names, or the base if `name` is None.

        Raises:
            NotFoundError: if no model has the name.
            UnavailableError: while the models are loading.
        """
        if not self._models:
            raise UnavailableError("the model is loading", retry_after=LOADING_SECONDS)
        model = self._models.get(self.base_name if name is None else name)
        if model is None and self.strict:
            raise self.unknown()
        return model or self._models[self.base_name]

    def unknown(self) -> NotFoundError:
        """The error for a name that no model has."""
        return NotFoundError(f"there is no such model; models: {', '.join(self.sources)}", "model")

    async def add(self, model: ServedModel) -> None:
        """Makes an adapter available to requests."""
        self.sources[model.name] = model.source
        self._models[model.name] = model

    def hide(self, name: str) -> None:
        """Makes an adapter unavailable to new requests."""
        del self._models[name], self.sources[name]

    async def wait_unused(self, id_: int) -> None:
        """Waits until no request uses the hidden adapter with this id."""
        if self._uses[id_]:
            await self._idle.setdefault(id_, asyncio.Event()).wait()

    @contextmanager
    def using(self, model: ServedModel) -> Iterator[None]:
        """Keeps an adapter loaded during the block. Raises `NotFoundError` if the adapter has been unloaded."""
        if model.id and self._models.get(model.name) is not model:
            raise self.unknown()
        self._uses[model.id] += 1
        try:
            yield
        finally:
            self._uses[model.id] -= 1
            if not self._uses[model.id]:
                del self._uses[model.id]
                if idle := self._idle.pop(model.id, None):
                    idle.set()
