"""The engines to compare, each in its own process. They take turns, so that other load affects all alike."""

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import psutil
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError

from bench.posting import body, post
from bench.worker import peak_resident_bytes
from bench.workloads import Workload

_ROOT = Path(__file__).parents[1]
# Infinity needs long to start, since it first measures its own speed.
_START_SECONDS = 1800
# Texts per request and number of clients: enough to fill many batches.
_TEXTS, _CLIENTS = 32, 8


@dataclass(frozen=True)
class Round:
    """One pass over a workload.

    Attributes:
        seconds: time from the first text to the last vector.
        memory: peak memory of the process in bytes: GPU memory if a library uses a GPU, else resident memory; 0 for a
            server on a GPU, where it is unknown.
        vectors: [n, d] float32, to check that engines compute the same.
    """

    seconds: float
    memory: int
    vectors: NDArray[np.float32]


class BenchEngine(Protocol):
    """Embeds workloads.

    Attributes:
        name: label in the results.
        ready_seconds: time from the start to the first vector.
    """

    name: str
    ready_seconds: float

    def run(self, workload: Workload) -> Round: ...


class LibraryEngine:
    """A library, in a worker process in its own venv."""

    def __init__(
        self,
        name: str,
        engine: str,
        python: Path,
        folder: Path,
        dtype: str,
        device: str,
        *,
        prepare: Callable[[Workload], Workload] | None = None,
    ) -> None:
        """`prepare` changes the texts before the time of a round starts."""
        self.name = name
        self._prepare = prepare
        self._command = [str(python), str(_ROOT / "bench/worker.py"), engine, str(folder), dtype, device]

    def __enter__(self) -> Self:
        started = time.perf_counter()
        environment = _environment(TOKENIZERS_PARALLELISM="true")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._receive()
        self.ready_seconds = time.perf_counter() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._process:  # closes the pipes
            self._process.kill()

    def run(self, workload: Workload) -> Round:
        task = self._prepare(workload) if self._prepare else workload
        done = self.ask(texts=task.texts, instruction=task.instruction)
        return Round(done["seconds"], done["memory"], _vectors(done))

    def pool_all(self, workload: Workload) -> NDArray[np.float32]:
        """Our own vectors with all tokens pooled, also the special one and the instruction's; see `bench.worker`."""
        return _vectors(self.ask(pool_all=workload.joined().texts))

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request to the worker, and return its response; see `bench.worker`."""
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(request)}\n")
        self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            with self._process:
                raise RuntimeError(f"{self.name} exited with status {self._process.wait()}")
        response: dict[str, Any] = json.loads(line)
        return response


class ServerEngine:
    """A server on a free port, with an endpoint like OpenAI's embeddings at `path`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        path: str,
        device: str,
        *,
        prepare: Callable[[Workload], Workload] | None = None,
        **fields: Any,
    ) -> None:
        """`prepare` changes the texts before the time of a round starts; `fields` are added to each request."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.name, self.url = name, f"http://127.0.0.1:{port}{path}"
        self._device, self.prepare, self._fields = device, prepare or Workload.joined, fields
        self._command = [*map(str, command), "--port", str(port)]

    @classmethod
    def l2v(cls, name: str, folder: Path, dtype: str, device: str, http_workers: int = 1) -> Self:
        """Our own server, in the environment of this interpreter."""
        serve = [
            sys.executable, "-m", "l2v.app.cli", "serve", "--model", folder, "--dtype", dtype, "--device", device,
            "--http-workers", str(http_workers),
        ]  # fmt: skip
        return cls(name, serve, "/v1/embeddings", device)

    def __enter__(self) -> Self:
        started = time.perf_counter()
        environment = _environment(DO_NOT_TRACK="1")
        self._process = subprocess.Popen(
            self._command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not self._ready():
            if self._process.poll() is not None or time.perf_counter() - started > _START_SECONDS:
                self._process.kill()
                self._process.wait()
                raise RuntimeError(f"{self.name} does not start: {' '.join(self._command)}")
            time.sleep(0.05)
        self.ready_seconds = time.perf_counter() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    def _ready(self) -> bool:
        try:
            post(self.url, [self.body(["a"])], clients=1)
        except (HTTPError, RuntimeError):
            return False
        return True

    def run(self, workload: Workload) -> Round:
        texts = self.prepare(workload).texts
        parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        bodies = list(map(self.body, parts))
        self._peak_memory()  # resets the peak
        started = time.perf_counter()
        responses = post(self.url, bodies, _CLIENTS)
        seconds = time.perf_counter() - started
        memory = self._peak_memory()
        rows = [row["embedding"] for response in responses for row in json.loads(response.content)["data"]]
        return Round(seconds, memory, np.array(rows, np.float32))

    def body(self, texts: Sequence[str]) -> bytes:
        """A request with these texts."""
        return body(texts, **self._fields)

    def _peak_memory(self) -> int:
        """Of the process and of those that it started."""
        started = [
            self._process.pid,
            *(child.pid for child in psutil.Process(self._process.pid).children(recursive=True)),
        ]
        return 0 if self._device == "cuda" else sum(peak_resident_bytes(str(process)) for process in started)


def _vectors(done: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(b64decode(done["vectors"]), "<f4").reshape(done["texts"], -1)


def _environment(**more: str) -> dict[str, str]:
    """The environment of a child process, which can import this code."""
    paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"} | more
