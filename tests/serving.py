"""Runs the service for tests: in this process on a real socket, or as `l2v serve` in its own process."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn

from l2v.app.http.server import protocol
from l2v.app.main import create_app
from l2v.app.settings import Settings
from l2v.models import Encoder

LOAD_SECONDS = 180


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Any, seconds: float = 30.0, what: str = "condition") -> None:
    """Polls until the condition holds; fails the test if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.01)


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Runs an HTTP server in a thread and yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class LocalServer:
    """The application with a given encoder, on uvicorn in a thread, with a client for it."""

    def __init__(self, encoder: Encoder, **settings: Any) -> None:
        made = Settings(**settings)
        # The fatal failures that the service reports.
        self.failures: list[str] = []
        self.app = create_app(made, encoder, self.failures.append)
        self.service = self.app.state.service
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                host="127.0.0.1",
                port=free_port(),
                log_config=None,
                access_log=False,
                http=protocol(made, self.app),
            )
        )
        self._thread = threading.Thread(target=self._server.run)
        self.url = f"http://127.0.0.1:{self._server.config.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_for(lambda: self._server.started, 20, "start")
        wait_for(lambda: self.client.get("/ready").status_code == 200, 20, "ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive(), "the server did not stop"

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._server.server_state.connections)

    def embed(self, inputs: Any, **fields: Any) -> dict[str, Any]:
        response = self.client.post("/embed", json={"inputs": inputs, **fields})
        assert response.status_code == 200, response.text
        content: dict[str, Any] = response.json()
        return content


class ServerProcess:
    """`l2v serve` in its own process."""

    def __init__(self, *flags: str, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60)
        self._log = tempfile.NamedTemporaryFile("w+", prefix="l2v-log-", suffix=".jsonl")  # noqa: SIM115
        self._command = [str(Path(sys.executable).with_name("l2v")), "serve", "--port", str(self.port), *flags]
        self._environment = os.environ | environment

    def __enter__(self) -> Self:
        # Run outside the checkout, as users do, and as the leader of a process group, as a shell starts it.
        self.process = subprocess.Popen(
            self._command,
            stderr=self._log,
            stdout=self._log,
            env=self._environment,
            cwd=tempfile.gettempdir(),
            process_group=0,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind is not None:
            print(self.log)
        self._log.close()

    @property
    def log(self) -> str:
        return Path(self._log.name).read_text()

    @property
    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines()]

    def is_open(self) -> bool:
        try:
            self.client.get("/health")
        except httpx.TransportError:
            return False
        return True

    def wait_open(self) -> None:
        wait_for(lambda: self.process.poll() is not None or self.is_open(), LOAD_SECONDS, "open port")
        assert self.process.poll() is None, self.log

    def wait_ready(self) -> None:
        self.wait_open()
        wait_for(lambda: self.client.get("/ready").status_code == 200, LOAD_SECONDS, "ready")

    def terminate(self) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)
