"""The engine's client, which runs in a front end."""

import asyncio
import itertools
import json
import pickle
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from l2v.app.engine.capacity import check_capacity
from l2v.app.engine.errors import UnavailableError
from l2v.app.engine.freezing import freeze
from l2v.app.engine.jobs import EncodingFailedError, Result
from l2v.app.engine.served_models import ServedModel
from l2v.app.engine.service import Service
from l2v.app.workers.shared_models import unpack_model
from l2v.app.workers.table import SharedUsage
from l2v.app.workers.wire import Kind, pack_encodings, receive, send, unpack_result
from l2v.models.types import Encoding

_GONE = "the engine is down: its process has ended"


@dataclass(frozen=True, slots=True)
class Opening:
    """What a front end needs to accept requests.

    Attributes:
        models: the base, then the adapters.
        max_batch_tokens: the token budget of a forward pass.
    """

    models: list[ServedModel]
    max_batch_tokens: int


class EngineClient:
    """Sends jobs to the engine, and opens the service once the engine has loaded the encoder.

    This class implements `Engine` and `Adapters`.

    Attributes:
        queue_tokens: always 0, since the engine's process reports the queue.
        opened: an event that is set as soon as the service is open, or can no longer open.
    """

    def __init__(self, service: Service, usage: SharedUsage, reader: StreamReader, writer: StreamWriter) -> None:
        self._service, self._usage = service, usage
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._hiding: set[asyncio.Task[None]] = set()
        self._failure: str | None = None
        self.queue_tokens = 0
        self.opened = asyncio.Event()

    async def run(self, on_drain: Callable[[], None]) -> None:
        """Processes messages until the engine's process ends. Calls `on_drain` when the engine sends `Kind.DRAIN`."""
        try:
            while True:
                kind, number, body = await receive(self._reader)
                match kind:
                    case Kind.OPEN:
                        await self._open(body)
                    case Kind.ADD:
                        await self._add(number, body)
                    case Kind.HIDE:
                        self._hide(number, *body.decode().split(" "))
                    case Kind.DRAIN:
                        self.opened.set()
                        on_drain()
                    case Kind.DOWN:
                        self._failure = body.decode()
                    case _:
                        self._settle(number, kind, body)
        except (EOFError, OSError):
            self.fail_all(_GONE)
        except Exception:
            self.fail_all("the front end failed")
            raise
        finally:
            self.opened.set()

    def submit(self, encodings: Sequence[Encoding]) -> asyncio.Future[Result]:
        """See `Scheduler.submit`."""
        future = self._request(Kind.SUBMIT, pack_encodings(encodings))
        self._usage.sent_tokens.add(sum(map(len, encodings)))
        return future

    async def load(self, name: str, path: str) -> None:
        """See `RuntimeAdapters.load`."""
        await self._request(Kind.LOAD, [json.dumps([name, path]).encode()])

    async def unload(self, name: str) -> None:
        """See `RuntimeAdapters.unload`."""
        await self._request(Kind.UNLOAD, [json.dumps([name]).encode()])

    async def scrape(self) -> bytes:
        """The metrics of all processes in Prometheus' text format."""
        metrics: bytes = await self._request(Kind.SCRAPE, [])
        return metrics

    @contextmanager
    def reserve(self, tokens: int) -> Iterator[None]:
        """See `Scheduler.reserve`."""
        self.check_capacity()
        self._usage.reserved_tokens.add(tokens)
        try:
            yield
        finally:
            self._usage.reserved_tokens.add(-tokens)

    def check_capacity(self) -> None:
        """See `Scheduler.check_capacity`."""
        usage, limit = self._usage, self._service.settings.max_queue_tokens
        check_capacity(usage.queue_tokens, limit, usage.tokens_per_second, self._service.metrics)

    @property
    def ready(self) -> bool:
        """Whether the service accepts requests, which it does once all front ends are open."""
        return self._usage.is_engine_ready

    @property
    def tokens_per_second(self) -> float:
        """The engine's recent rate; 0 before the first forward pass."""
        return self._usage.tokens_per_second

    @property
    def failure(self) -> str | None:
        """The reason why the engine is down; None if the engine is up."""
        if self._failure is None and self._usage.engine_silence > (limit := self._service.settings.engine_timeout):
            return f"the engine is down: its process has not responded for {limit:g} s (engine_timeout)"
        if self._failure is None and self._writer.transport.is_closing():
            return _GONE
        return self._failure

    def fail_all(self, failure: str) -> None:
        """Fails all jobs and accepts no more jobs."""
        self._failure = failure
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(UnavailableError(failure))
        self._waiting.clear()

    def close(self, timeout: float) -> None:
        """Disconnects from the engine, which runs in another process, so there is nothing to wait for."""
        self._writer.close()

    def _request(self, kind: Kind, parts: Sequence[Any]) -> asyncio.Future[Any]:
        if failure := self.failure:
            raise UnavailableError(failure)
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: self._cancel(number) if done.cancelled() else None)
        send(self._writer, kind, number, parts)
        return future

    def _cancel(self, number: int) -> None:
        if self._waiting.pop(number, None):
            send(self._writer, Kind.CANCEL, number)

    def _settle(self, number: int, kind: Kind, body: bytes) -> None:
        future = self._waiting.pop(number, None)
        if future is None or future.done():
            return  # the request was cancelled meanwhile
        match kind:
            case Kind.RESULT:
                future.set_result(unpack_result(body))
            case Kind.METRICS | Kind.DONE:
                future.set_result(body)
            case Kind.REJECTED:
                future.set_exception(pickle.loads(body))  # noqa: S301 - from the engine's process
            case Kind.FAILED:
                position, _, message = body.decode().partition(" ")
                future.set_exception(EncodingFailedError(message, int(position)))
            case Kind.REFUSED:
                future.set_exception(UnavailableError(body.decode()))

    async def _open(self, body: bytes) -> None:
        # Safe to unpickle, since the engine's process sent the body over a socket that no other process has.
        opening: Opening = await asyncio.to_thread(pickle.loads, body)
        freeze()
        self._service.open(opening.models, opening.max_batch_tokens, self, self)
        self.opened.set()
        send(self._writer, Kind.OPENED)

    async def _add(self, number: int, body: bytes) -> None:
        models = self._service.models
        model = await asyncio.to_thread(unpack_model, body, models.find())
        self._service.metrics.start_model(model.label)
        await models.add(model)
        send(self._writer, Kind.CHANGED, number)

    def _hide(self, number: int, id_: str, name: str) -> None:
        models = self._service.models
        models.hide(name)

        async def confirm() -> None:
            await models.wait_unused(int(id_))
            send(self._writer, Kind.CHANGED, number)

        task = asyncio.create_task(confirm())
        self._hiding.add(task)
        task.add_done_callback(self._hiding.discard)
