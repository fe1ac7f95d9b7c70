"""`l2v serve`."""

import logging
import math
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Iterable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from l2v.app.http.connection import Connection
from l2v.app.settings import Settings
from l2v.models.settings import PREFIX

if TYPE_CHECKING:
    from l2v.app.engine.service import Service
    from l2v.app.http.telemetry import Metrics

logger = logging.getLogger(__name__)

# How long it goes on listening after the last answer: clients and load balancers meet a 503, not a closed port.
LINGER_SECONDS = 0.5
# What Kubernetes sets in the pods beside a Service whose name begins with ours.
_SERVICE_LINKS = re.compile(rf"{PREFIX}(\w+_)?(SERVICE|PORT)(_|$)")
# Open files beside the connections: libraries, the model, logs.
_FILES = 256


class Serve(Settings):
    """Serve an encoder over HTTP.

    Examples:
        l2v serve
        l2v serve --model sheared-llama-1.3b-supervised --port 9000
        l2v serve --model meta-llama/Meta-Llama-3-8B-Instruct --adapters my/mntp,my/contrastive@v2
    """

    def cli_cmd(self) -> None:
        # The first process of a container gets no signal that it has no handler for; uvicorn sets its own later.
        signal.signal(signal.SIGTERM, lambda *_: _end(""))
        from l2v.app.commands.loading import prepare_service

        prepare_service(self.log_level)  # before torch comes with the next
        from l2v.app.main import create_app

        for name in unknown(os.environ):
            logger.warning("the service has no such setting", extra={"variable": name})
        if reason := _allow_files(self.max_connections):
            _end(f"l2v: {reason}")
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
            http=protocol(self, app.state.service.metrics),
            timeout_keep_alive=math.ceil(self.idle_timeout),
            ws="none",  # a handshake would be logged with its path and its key
            timeout_graceful_shutdown=1,  # the server below has waited already
        )
        server = Server(config, app.state.service, self.drain_timeout)
        try:
            server.run()
        except SystemExit:
            failures.append(
                f"cannot listen on {self.host}:{self.port}: is another process there, or is the port reserved?"
            )
        _end(f"l2v: {failures[0]}" if failures else "")


def protocol(settings: Settings, metrics: "Metrics") -> Any:
    """What uvicorn makes of each connection."""
    return partial(
        Connection,
        metrics.rejected.labels("connections").inc,
        settings.max_connections,
        settings.idle_timeout,
        settings.request_timeout,
        max_header_bytes=settings.max_header_bytes,
    )


def unknown(names: Iterable[str]) -> list[str]:
    """Those of the environment's names that look like settings of the service and are none."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    return sorted(
        name for name in names if name.startswith(PREFIX) and name not in known and not _SERVICE_LINKS.match(name)
    )


def _allow_files(connections: int) -> str:
    """Lets this process open what so many connections need; what is wrong, if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _FILES
    if resource.RLIM_INFINITY != hard < needed:
        return f"max_connections {connections} needs {needed} open files, and this process may have {hard} (ulimit -Hn)"
    if resource.RLIM_INFINITY != soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return ""


class Server(uvicorn.Server):
    """Goes on listening while it drains, so that new requests are told so, and ends with status 0 after that."""

    def __init__(self, config: uvicorn.Config, service: "Service", drain_timeout: float) -> None:
        super().__init__(config)
        self._service = service
        self._drain_timeout = drain_timeout
        self._draining_since: float | None = None
        self._signalled = False
        self._busy = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A second signal ends it at once. uvicorn's own version would raise the signal again afterwards.
        if self._signalled:
            self.should_exit = self.force_exit = True
        self._signalled = True
        self.drain()

    def drain(self) -> None:
        """Refuses new requests, and ends when those in the house are answered, and their answers taken."""
        if self._draining_since is None:
            self._busy = self._draining_since = time.monotonic()
            self._service.drain()

    async def on_tick(self, counter: int) -> bool:
        if self._draining_since is not None:
            now = time.monotonic()
            connections = cast(set[Connection], self.server_state.connections)
            if self._service.in_house or any(connection.unsent for connection in connections):
                self._busy = now
            self.should_exit |= now - self._busy > LINGER_SECONDS or now - self._draining_since > self._drain_timeout
        return await super().on_tick(counter)


def _end(reason: str) -> None:
    """Ends the process with its last words. Not by Python's own way: that aborts where a daemon thread is in torch."""
    if reason:
        print(reason, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if reason else 0)
