"""A uvicorn server that keeps listening while it drains."""

import math
import time
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from l2v.app.engine.service import Service
from l2v.app.http.connection import Connection
from l2v.app.settings import Settings

# How long the server keeps listening after the last response, so that clients get a 503 rather than a closed port.
_LINGER_SECONDS = 0.5


def protocol(settings: Settings, app: FastAPI) -> Any:
    """The function that uvicorn calls to make each connection."""
    service: Service = app.state.service
    on_rejected = service.metrics.rejected.labels("connections").inc
    return partial(Connection, settings, app.state.targets, service.usage.connections, on_rejected)


class Server(uvicorn.Server):
    """Keeps listening while it drains, so that new requests get an error, and then exits with status 0."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            http=protocol(settings, app),
            timeout_keep_alive=math.ceil(settings.idle_timeout),
            ws="none",  # otherwise, uvicorn logs the path and the key of WebSocket handshakes
            timeout_graceful_shutdown=1,  # `on_tick` has already waited for the responses
        )
        super().__init__(config)
        self._service: Service = app.state.service
        self._drain_timeout = settings.drain_timeout
        self._draining_since: float | None = None
        self._signalled = False
        self._last_busy = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A second signal ends the process at once. uvicorn's own method would raise the signal again afterwards.
        if self._signalled:
            self.should_exit = self.force_exit = True
        self._signalled = True
        self.drain()

    def drain(self) -> None:
        """Rejects new requests, and exits once the responses to all accepted requests are sent."""
        if self._draining_since is None:
            self._last_busy = self._draining_since = time.monotonic()
            self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        if self._draining_since is not None:
            now = time.monotonic()
            connections = cast("set[Connection]", self.server_state.connections)
            if self._service.in_flight or any(connection.unsent for connection in connections):
                self._last_busy = now
            idle = now - self._last_busy > _LINGER_SECONDS
            self.should_exit |= idle or now - self._draining_since > self._drain_timeout
        return await super().on_tick(counter)
