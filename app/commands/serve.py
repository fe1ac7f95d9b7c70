"""`l2v serve`."""

import errno
import logging
import math
import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from l2v.app.settings import Settings
from l2v.models.runtime import prepare_libraries
from l2v.models.settings import PREFIX

if TYPE_CHECKING:
    from fastapi import FastAPI

    from l2v.app.engine.service import Service
    from l2v.app.http.connection import Connection

logger = logging.getLogger(__name__)

# How long the server keeps listening after the last response, so that clients get a 503 rather than a closed port.
LINGER_SECONDS = 0.5
# Variables that Kubernetes sets in the pods next to a Service whose name starts with l2v.
_SERVICE_LINKS = re.compile(rf"{PREFIX}(\w+_)?(SERVICE|PORT)(_|$)")
# Open files other than connections: libraries, the model, logs.
_FILES = 256


class Serve(Settings):
    """Serve an encoder over HTTP.

    Examples:
        l2v serve
        l2v serve --model sheared-llama-1.3b-supervised --port 9000
        l2v serve --model meta-llama/Meta-Llama-3-8B-Instruct --adapters my/mntp,my/contrastive@v2
    """

    def cli_cmd(self) -> None:
        # Until it has a handler, the first process of a container gets no signal. uvicorn installs its own later.
        signal.signal(signal.SIGTERM, lambda *_: _exit(""))
        if reason := _unusable(self.host, self.port):  # before torch is loaded, which takes seconds
            _exit(f"l2v: {reason}")
        from l2v.app.logs import configure_logging

        configure_logging(self.log_level)
        logger.info("loading", extra={"model": self.model})
        prepare_libraries(serving=True)  # before the next import loads torch
        from l2v.app.main import create_app

        for name in unknown(os.environ):
            logger.warning("unknown setting", extra={"variable": name})
        if reason := _allow_files(self.max_connections):
            _exit(f"l2v: {reason}")
        failures: list[str] = []

        def stop(reason: str) -> None:
            failures.append(reason)
            server.drain()

        app = create_app(self, on_failure=stop)
        config = uvicorn.Config(
            app,
            host=self.host,
            port=self.port,
            log_config=None,
            access_log=False,
            server_header=False,
            http=protocol(self, app),
            timeout_keep_alive=math.ceil(self.idle_timeout),
            ws="none",  # uvicorn logs a WebSocket handshake with its path and key
            timeout_graceful_shutdown=1,  # `Server` has already waited
        )
        server = Server(config, app.state.service, self.drain_timeout)
        try:
            server.run()
        except SystemExit:
            failures.append(_unusable(self.host, self.port) or f"cannot listen on {self.host}:{self.port}")
        _exit(f"l2v: {failures[0]}" if failures else "")


def protocol(settings: Settings, app: "FastAPI") -> Any:
    """The factory of uvicorn's connections."""
    from l2v.app.http.connection import Connection

    on_rejected = app.state.service.metrics.rejected.labels("connections").inc
    return partial(Connection, settings, app.state.targets, on_rejected)


def unknown(names: Iterable[str]) -> list[str]:
    """The environment variables that have the prefix of settings but name no setting."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name for name in names if name.startswith(PREFIX) and name not in known and not _SERVICE_LINKS.match(name)
    )


def _unusable(host: str, port: int) -> str:
    """Why a server cannot listen at an address; "" if it can."""
    try:
        for family, *_, address in socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM):
            socket.create_server(address[:2], family=family).close()
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return ""  # a name may have other addresses: the server decides
        reason = (error.strerror or str(error)).partition(" (")[0]
        return f"cannot listen on {host}:{port} ({reason}): end the process that uses the port, or set another address"
    return ""


def _allow_files(connections: int) -> str:
    """Raises the limit of open files to what the connections require. Returns the reason if it cannot, else ""."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    required = connections + _FILES
    if resource.RLIM_INFINITY != hard < required:
        return f"max_connections {connections} requires {required} open files; the limit is {hard} (ulimit -Hn)"
    if resource.RLIM_INFINITY != soft < required:
        resource.setrlimit(resource.RLIMIT_NOFILE, (required, hard))
    return ""


class Server(uvicorn.Server):
    """Keeps listening while it drains, so that new requests get an error, and then exits with status 0."""

    def __init__(self, config: uvicorn.Config, service: "Service", drain_timeout: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_timeout = drain_timeout
        self._draining_since: float | None = None
        self._signalled = False
        self._last_busy = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A second signal ends the process at once. uvicorn's method would raise the signal again at exit.
        if self._signalled:
            self.should_exit = self.force_exit = True
        self._signalled = True
        self.drain()

    def drain(self) -> None:
        """Rejects new requests, and exits once the accepted ones are answered and their responses sent."""
        if self._draining_since is None:
            self._last_busy = self._draining_since = time.monotonic()
            self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        if self._draining_since is not None:
            now = time.monotonic()
            connections = cast("set[Connection]", self.server_state.connections)
            if self._service.in_flight or any(connection.unsent for connection in connections):
                self._last_busy = now
            idle = now - self._last_busy > LINGER_SECONDS
            self.should_exit |= idle or now - self._draining_since > self._drain_timeout
        return await super().on_tick(counter)


def _exit(reason: str) -> None:
    """Prints the reason, if any, and ends the process. Python's normal exit aborts if a daemon thread runs torch."""
    if reason:
        print(reason, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if reason else 0)
