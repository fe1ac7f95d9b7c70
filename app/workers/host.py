"""The engine's end of the connection to one front end."""

import asyncio
import itertools
import json
import logging
import pickle
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any

from l2v.app.engine.errors import ServiceError, UnavailableError
from l2v.app.engine.jobs import EncodingFailedError, Result
from l2v.app.engine.protocol import Adapters, Engine
from l2v.app.logs import outline
from l2v.app.workers.table import Column, EngineCell, Table
from l2v.app.workers.wire import Kind, Part, pack_result, receive, send, unpack_encodings

logger = logging.getLogger(__name__)

# What the front end gets instead of an unexpected error, which may not be picklable. It then answers as for any bug.
_BUG = RuntimeError("the engine failed")


class Host:
    """Submits the jobs of one front end to the engine, and sends the results back.

    Args:
        slot: the front end's place in the table.
        table: counts the tokens that have arrived.
        engine: a function that returns the scheduler, which exists before the front end sends its first job.
        adapters: a function that returns the adapter loader, which exists before the first job too.
        scrape: a function that returns the metrics.
        writer: writes to the connection.

    Attributes:
        opened: whether the front end can accept requests.
    """

    def __init__(
        self,
        slot: int,
        table: Table,
        engine: Callable[[], Engine],
        adapters: Callable[[], Adapters],
        scrape: Callable[[], Awaitable[bytes]],
        writer: StreamWriter,
    ) -> None:
        self._slot, self._table = slot, table
        self._engine, self._adapters, self._scrape = engine, adapters, scrape
        self._writer = writer
        self._jobs: dict[int, Future[Result] | asyncio.Future[Result]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)
        self._changes: dict[int, asyncio.Future[None]] = {}
        self._loop = asyncio.get_running_loop()
        self.opened = False

    def send(self, kind: Kind, text: bytes = b"") -> None:
        """Sends a message that is not about a job."""
        send(self._writer, kind, 0, [text])

    def change(self, kind: Kind, body: bytes) -> "asyncio.Future[None]":
        """Tells the front end to change its models. The future is done after the change, or once the front end ends."""
        future = self._loop.create_future()
        if self._writer.transport.is_closing():
            future.set_result(None)
        else:
            number = next(self._numbers)
            self._changes[number] = future
            send(self._writer, kind, number, [body])
        return future

    async def run(self, reader: StreamReader) -> None:
        """Processes messages until the front end disconnects, and then cancels the front end's jobs."""
        try:
            while True:
                kind, number, body = await receive(reader)
                self._receive(kind, number, body)
        except (EOFError, OSError):
            pass
        finally:
            for job in self._jobs.values():
                job.cancel()
            self._jobs.clear()
            for change in self._changes.values():
                change.set_result(None)
            self._changes.clear()
            self._writer.close()

    def _receive(self, kind: Kind, number: int, body: bytes) -> None:
        match kind:
            case Kind.SUBMIT:
                self._submit(number, body)
            case Kind.CANCEL:
                if job := self._jobs.pop(number, None):
                    job.cancel()
            case Kind.OPENED:
                self.opened = True
            case Kind.CHANGED:
                self._changes.pop(number).set_result(None)
            case Kind.SCRAPE:
                self._start(self._send_metrics(number))
            case Kind.LOAD | Kind.UNLOAD:
                self._start(self._change_adapters(number, kind, json.loads(body)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _change_adapters(self, number: int, kind: Kind, arguments: list[str]) -> None:
        try:
            if kind is Kind.LOAD:
                await self._adapters().load(*arguments)
            else:
                await self._adapters().unload(*arguments)
        except ServiceError as error:
            send(self._writer, Kind.REJECTED, number, [pickle.dumps(error)])
        except Exception as error:
            logger.error("bug", extra=outline(error))
            send(self._writer, Kind.REJECTED, number, [pickle.dumps(_BUG)])
        else:
            send(self._writer, Kind.DONE, number)

    async def _send_metrics(self, number: int) -> None:
        try:
            send(self._writer, Kind.METRICS, number, [await self._scrape()])
        except Exception as error:
            logger.error("the metrics cannot be read", extra=outline(error))
            send(self._writer, Kind.REFUSED, number, [b"the metrics cannot be read"])

    def _submit(self, number: int, body: bytes) -> None:
        encodings = unpack_encodings(body)
        tokens = sum(map(len, encodings))
        # Add the tokens to the queue first, so that they count twice for a moment rather than not at all.
        self._table.engine[EngineCell.QUEUE_TOKENS] += tokens
        self._table.column(Column.RECEIVED_TOKENS)[self._slot] += tokens
        try:
            job = self._jobs[number] = self._engine().submit(encodings)
        except UnavailableError as error:
            send(self._writer, Kind.REFUSED, number, [str(error).encode()])
            return
        job.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._answer, number, done))

    def _answer(self, number: int, job: "Future[Result] | asyncio.Future[Result]") -> None:
        if self._jobs.pop(number, None):  # else nobody waits for the result any more
            kind, parts = _outcome(job)
            send(self._writer, kind, number, parts)


def _outcome(job: "Future[Result] | asyncio.Future[Result]") -> tuple[Kind, list[Part]]:
    try:
        return Kind.RESULT, pack_result(job.result())
    except EncodingFailedError as error:
        return Kind.FAILED, [f"{error.position} {error}".encode()]
    except (UnavailableError, CancelledError) as error:
        return Kind.REFUSED, [str(error).encode()]
    except Exception as error:
        logger.error("bug", extra=outline(error))
        return Kind.REJECTED, [pickle.dumps(_BUG)]
