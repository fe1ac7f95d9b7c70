"""The engine's process: binds the port, starts the front ends, and replaces front ends that end or hang."""

import asyncio
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr
from uvicorn.loops.auto import auto_loop_factory

from l2v.app.engine.local import local_engine
from l2v.app.engine.protocol import Adapters, Engine
from l2v.app.engine.service import Service
from l2v.app.logs import outline
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.app.workers import exposition
from l2v.app.workers.acceptor import listen
from l2v.app.workers.client import Opening
from l2v.app.workers.host import Host
from l2v.app.workers.setup import Setup
from l2v.app.workers.shared_models import SharedModels
from l2v.app.workers.table import Column, EngineCell, Table
from l2v.app.workers.wire import STREAM_LIMIT, Kind

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.02
# The pause before a front end is replaced. The pause doubles each time that a front end ends within `_STEADY_SECONDS`
# of its start.
_STEADY_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
# How long a front end may run after `drain_timeout`, or after it disconnects, before it is killed.
_END_SECONDS = 5.0


def serve(settings: Settings) -> str:
    """Serves with several front ends until a signal or a failure. Returns the reason for a failure, else ""."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner, tempfile.TemporaryDirectory(prefix="l2v-") as path:
        return runner.run(Supervisor(settings, Path(path)).run())


class Supervisor:
    """Runs the engine and its front ends.

    Args:
        settings: all settings.
        folder: a private folder, for the metrics of the front ends and the table of how much of each limit is in use.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._hosts: dict[int, Host] = {}
        self._service = Service(settings, Metrics(), models=SharedModels(settings, self._hosts.values))
        self._table_file = (folder / "table").open("w+b")
        self._table = Table(self._table_file.fileno(), settings.http_workers)
        self._setup = Setup(
            settings=_resolved(settings),
            prompts=self._service.prompts,
            started=self._service.started,
            folder=folder,
            engine_process=os.getpid(),
            table=self._table_file.fileno(),
        )
        self._processes: dict[int, Process] = {}
        # For each front end, its last count of heartbeats, and the number of ticks since then.
        self._silences = [(0, 0)] * settings.http_workers
        self._opened = False
        self._rendering: asyncio.Task[bytes] | None = None
        self._stopping = asyncio.Event()
        self._failure = ""

    async def run(self) -> str:
        """Serves until a signal or a failure. Returns the reason for a failure, else ""."""
        self._loop = asyncio.get_running_loop()
        host, port = self._settings.host, self._settings.port
        try:
            listeners = listen(host, port)
        except OSError as error:
            return f"cannot listen on {host}:{port} ({error.strerror})"
        self._listeners = tuple(listener.fileno() for listener in listeners)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal)
        for listener in listeners:
            logger.info("listening", extra={"address": listener.getsockname()[:2]})
        async with local_engine(self._service, None, self._fail):
            ticking = asyncio.create_task(self._tick())
            front_ends = [asyncio.create_task(self._keep(slot)) for slot in range(self._settings.http_workers)]
            for task in (ticking, *front_ends):
                task.add_done_callback(self._on_done)
            await self._stopping.wait()
            for host_ in self._hosts.values():
                host_.send(Kind.DRAIN)
            for listener in listeners:
                listener.close()  # so that the port closes when the last front end closes it
            await asyncio.wait(front_ends, timeout=self._settings.drain_timeout + _END_SECONDS)
            self._kill()
            await asyncio.wait(front_ends)
            ticking.cancel()
        return self._failure

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            self._kill()  # a second signal ends everything at once
        self._stop()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            logger.critical("bug", extra=outline(error))
            self._stop(f"the supervisor failed ({type(error).__name__})")

    def _fail(self, reason: str) -> None:
        """Stops after a failure. Any thread may call this method."""
        self._loop.call_soon_threadsafe(self._stop, reason)

    def _stop(self, failure: str = "") -> None:
        self._failure = self._failure or failure
        if (engine := self._service.engine) and (reason := engine.failure):
            for host in self._hosts.values():
                host.send(Kind.DOWN, reason.encode())
        self._service.drain()
        self._stopping.set()

    def _kill(self) -> None:
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.kill()

    async def _keep(self, slot: int) -> None:
        """Runs a front end, and replaces it when it ends."""
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                status: object = await self._run(slot)
            except OSError as error:  # no memory or no file descriptors for another process
                status = error.strerror
            if self._stopping.is_set():
                return
            if pause == _LONGEST_PAUSE and not self._table.engine[EngineCell.READY]:
                self._stop(f"front ends cannot start (status {status}): the log says why")
                return
            steady = time.monotonic() - started > _STEADY_SECONDS
            pause = _FIRST_PAUSE if steady else min(2 * pause, _LONGEST_PAUSE)
            logger.error("a front end ended and is replaced", extra={"slot": slot, "status": status, "pause": pause})
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run(self, slot: int) -> int | None:
        """Runs a front end until it ends. Returns its exit status."""
        ours, theirs = socket.socketpair()
        with theirs:
            engine = theirs.fileno()
            descriptors = (engine, self._setup.table, *self._listeners)
            # -P keeps Python from importing modules of the working folder instead of installed modules.
            command = (sys.executable, "-P", "-m", "l2v.app.workers.frontend")
            # In a session of its own, Ctrl-C does not reach a front end, not even while it imports its modules.
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, pass_fds=descriptors, start_new_session=True
            )
        self._processes[slot] = process
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=STREAM_LIMIT)
            host = self._hosts[slot] = Host(slot, self._table, self._engine, self._adapters, self._scrape, writer)
            setup = self._setup.of(slot, engine, self._listeners, loaded=self._opened)
            assert process.stdin
            process.stdin.write(pickle.dumps(setup))
            process.stdin.close()
            if self._opened:
                host.send(Kind.OPEN, self._opening())
            if self._stopping.is_set():
                host.send(Kind.DRAIN)
            await host.run(reader)
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        except Exception as error:
            logger.error("a front end fails", extra={"slot": slot, **outline(error)})
            with suppress(ProcessLookupError):
                process.kill()
        status = await process.wait()
        self._hosts.pop(slot, None)
        del self._processes[slot]
        self._table.clear(slot)
        exposition.forget_gauges(self._folder, slot)
        return status

    async def _tick(self) -> None:
        """Updates the table, opens front ends once the encoder is loaded, and kills front ends that hang."""
        cells = self._table.engine
        while True:
            cells[EngineCell.HEARTBEAT] = time.monotonic_ns()
            if engine := self._service.engine:
                cells[EngineCell.QUEUE_TOKENS] = engine.queue_tokens
                cells[EngineCell.TOKENS_PER_SECOND] = int(engine.tokens_per_second)
                if not self._opened:
                    self._open()
                if self._hosts and all(host.opened for host in self._hosts.values()):
                    cells[EngineCell.READY] = 1
            self._kill_hung()
            await asyncio.sleep(_TICK_SECONDS)

    def _kill_hung(self) -> None:
        """Kills front ends without a heartbeat for `engine_timeout`; `_keep` replaces them.

        Counts ticks rather than seconds, so that the time in which all processes are suspended does not count.
        """
        for slot, beats in enumerate(self._table.column(Column.HEARTBEATS)):
            last, ticks = self._silences[slot]
            # A front end sends its first heartbeat after importing its modules. Until then, its silence does not count.
            ticks = ticks + 1 if beats and beats == last else 0
            if ticks * _TICK_SECONDS > self._settings.engine_timeout:
                logger.error("a front end hangs and is killed", extra={"slot": slot})
                with suppress(ProcessLookupError):
                    self._processes[slot].kill()
                ticks = 0
            self._silences[slot] = beats, ticks

    def _open(self) -> None:
        opening = self._opening()
        for host in self._hosts.values():
            host.send(Kind.OPEN, opening)
        self._opened = True

    def _opening(self) -> bytes:
        return pickle.dumps(Opening(list(self._service.models), self._service.max_batch_tokens))

    def _engine(self) -> Engine:
        engine = self._service.engine
        assert engine is not None  # front ends open only once the engine exists
        return engine

    def _adapters(self) -> Adapters:
        adapters = self._service.adapters
        assert adapters is not None  # front ends open only once the encoder is loaded
        return adapters

    async def _scrape(self) -> bytes:
        """The metrics of all processes. Concurrent scrapes share the work, which takes up to 0.1 s."""
        if self._rendering is None or self._rendering.done():
            rendered = asyncio.to_thread(exposition.render, self._service.metrics.registry, self._folder)
            self._rendering = asyncio.create_task(rendered)
        return await asyncio.shield(self._rendering)


def _resolved(settings: Settings) -> Settings:
    """The settings with the keys of `api_keys_file`, and without prompts, which `Setup.prompts` holds.

    So front ends that start later get the same keys and prompts, even if the files have changed.
    """
    keys = tuple(SecretStr(key) for key in settings.read_keys())
    without = {"prompts": None, "query_instruction": "", "document_instruction": ""}
    return settings.model_copy(update={"api_keys": keys, "api_keys_file": None, **without})
