"""A front end: the process that speaks HTTP, tokenizes, and sends jobs to the engine. It does not load torch."""

import asyncio
import logging
import os
import pickle
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from fastapi import FastAPI

from l2v.app.engine.service import Service
from l2v.app.http.routes.dependencies import exposition
from l2v.app.http.server import Server
from l2v.app.logs import configure_logging, outline
from l2v.app.main import build_app
from l2v.app.metrics import Metrics
from l2v.app.workers.acceptor import Acceptor
from l2v.app.workers.client import EngineClient
from l2v.app.workers.exposition import count_in_files
from l2v.app.workers.setup import Setup
from l2v.app.workers.table import SharedUsage, Table
from l2v.app.workers.wire import STREAM_LIMIT

logger = logging.getLogger(__name__)

# When the engine's process ends, its connections close at once, but its children get a new parent up to this many
# seconds later. So a front end waits this long before it checks whether the engine is still its parent.
_ORPHAN_SECONDS = 0.2


class FrontEnd:
    """Serves HTTP until the engine tells it to drain, or until the engine's process ends."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._usage = SharedUsage(Table(setup.table, setup.settings.http_workers), setup.slot)
        self._service = Service(setup.settings, Metrics(), self._usage)
        self._service.prompts, self._service.started = setup.prompts, setup.started
        self._app = build_app(self._service, self._engine())
        self._app.dependency_overrides[exposition] = self._scrape
        listeners = [socket.socket(fileno=descriptor) for descriptor in setup.listeners]
        self._server = FrontEndServer(self._app, self._service, self._usage, listeners)

    def run(self) -> None:
        self._server.run()

    @asynccontextmanager
    async def _engine(self) -> AsyncIterator[None]:
        connection = socket.socket(fileno=self._setup.engine)
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=STREAM_LIMIT)
        self._client = EngineClient(self._service, self._usage, reader, writer)
        following = asyncio.create_task(self._follow())
        if self._setup.loaded:
            await self._client.opened.wait()
        yield
        following.cancel()
        self._client.close(0)

    async def _follow(self) -> None:
        """Drains when the engine sends `Kind.DRAIN`. Ends this process when the engine is gone or an error occurs."""
        try:
            await self._client.run(self._server.drain)
            await asyncio.sleep(_ORPHAN_SECONDS)
            if os.getppid() != self._setup.engine_process:  # else the engine still runs and needs the folder
                shutil.rmtree(self._setup.folder, ignore_errors=True)
        except Exception as error:
            logger.critical("a front end failed", extra=outline(error))
        # End this process, so that the port is free for the next engine. Waiting requests have received their errors.
        self._server.should_exit = True

    async def _scrape(self) -> bytes:
        return await self._client.scrape()


class FrontEndServer(Server):
    """Accepts connections from sockets that all front ends share, and leaves signals to the engine."""

    def __init__(self, app: FastAPI, service: Service, usage: SharedUsage, listeners: list[socket.socket]) -> None:
        super().__init__(app, service.settings)
        self._usage = usage
        self._listeners = listeners

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])

        def connection() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        self.servers: list[Any] = [
            Acceptor(listener, connection, self._usage.connections) for listener in self._listeners
        ]

    async def on_tick(self, counter: int) -> bool:
        self._usage.heartbeats.add(1)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def main() -> None:
    # Ignore signals to all processes, as systemd sends them. The engine gets them too and tells front ends to drain.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    setup: Setup = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the process that started this one
    configure_logging(setup.settings.log_level, setup.settings.log_format)
    count_in_files(setup.folder, setup.slot)
    status = 0
    try:
        FrontEnd(setup).run()
    except Exception as error:
        logger.critical("a front end failed", extra=outline(error))
        status = 1
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    main()
