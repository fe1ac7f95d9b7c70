"""The models in the engine's process. Each front end has a copy of these models."""

import asyncio
import pickle
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from l2v.app.engine.served_models import ServedModel, ServedModels
from l2v.app.settings import Settings
from l2v.app.workers.host import Host
from l2v.app.workers.wire import Kind

_TOKENIZER = "tokenizer"


class SharedModels(ServedModels):
    """The models in the engine's process. Tells the front ends of each change.

    Args:
        settings: all settings.
        hosts: returns the engine's ends of the connections to the front ends.
    """

    def __init__(self, settings: Settings, hosts: Callable[[], Iterable[Host]]) -> None:
        super().__init__(settings)
        self._hosts = hosts
        self._hiding: dict[int, list[asyncio.Future[None]]] = {}

    async def add(self, model: ServedModel) -> None:
        await super().add(model)
        body = pack_model(model, self.find())
        await asyncio.gather(*[host.change(Kind.ADD, body) for host in self._hosts()])

    def hide(self, name: str) -> None:
        id_ = self._models[name].id
        super().hide(name)
        self._hiding[id_] = [host.change(Kind.HIDE, f"{id_} {name}".encode()) for host in self._hosts()]

    async def wait_unused(self, id_: int) -> None:
        await asyncio.gather(*self._hiding.pop(id_))


def pack_model(model: ServedModel, base: ServedModel) -> bytes:
    """Pickles an adapter, but not its tokenizer if that is the base's tokenizer, since a copy may take 50 MB."""
    tokenizer = base.profile.tokenization.tokenizer

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> str | None:
            return _TOKENIZER if value is tokenizer else None

    buffer = BytesIO()
    Pickler(buffer).dump(model)
    return buffer.getvalue()


def unpack_model(body: bytes, base: ServedModel) -> ServedModel:
    """The adapter that `pack_model` has pickled. The body must come from the engine, since unpickling can run code."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, _: Any) -> object:
            return base.profile.tokenization.tokenizer

    model: ServedModel = Unpickler(BytesIO(body)).load()
    return model
