"""Engines side by side: each in a process of its own, asked in turn, so that all see the machine in the same mood."""

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError

from bench.posting import body, post
from bench.worker import peak
from bench.workloads import Workload

_ROOT = Path(__file__).parents[1]
# Infinity times itself before it is ready.
_START_SECONDS = 1800
# Of a request, and how many requests are on the way at once: enough to fill many batches.
_TEXTS, _CLIENTS = 32, 8


@dataclass(frozen=True)
class Round:
    """One pass over a workload.

    Attributes:
        seconds: from the first text to the last vector.
        memory: the most bytes that the process held meanwhile: of the GPU where a library runs there, else resident; 0
            for a server on a GPU, which does not say.
        vectors: [n, d] float32, to see that engines compute the same.
    """

    seconds: float
    memory: int
    vectors: NDArray[np.float32]


class Engine(Protocol):
    """What embeds a workload."""

    name: str
    ready_seconds: float

    def run(self, workload: Workload) -> Round: ...


class InProcess:
    """A library, in a worker process of its venv."""

    def __init__(self, name: str, engine: str, python: Path, folder: Path, dtype: str, device: str) -> None:
        self.name = name
        self._command = [str(python), str(_ROOT / "bench/worker.py"), engine, str(folder), dtype, device]

    def __enter__(self) -> Self:
        started = time.perf_counter()
        environment = _environment(TOKENIZERS_PARALLELISM="true")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()
        self.ready_seconds = time.perf_counter() - started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._process:  # closes its pipes
            self._process.kill()

    def run(self, workload: Workload) -> Round:
        done = self.ask(texts=workload.texts, instruction=workload.instruction)
        vectors = np.frombuffer(b64decode(done["vectors"]), "<f4").reshape(len(workload.texts), -1)
        return Round(done["seconds"], done["memory"], vectors)

    def ask(self, **what: Any) -> dict[str, Any]:
        """An answer of the worker, see there."""
        assert self._process.stdin
        self._process.stdin.write(f"{json.dumps(what)}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            with self._process:
                raise RuntimeError(f"{self.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Server:
    """A server with OpenAI's embeddings at `path`, on a free port."""

    def __init__(self, name: str, command: Sequence[str | Path], path: str, device: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.name, self.url = name, f"http://127.0.0.1:{port}{path}"
        self._device = device
        self._command = [*map(str, command), "--port", str(port)]

    @classmethod
    def l2v(cls, name: str, folder: Path, dtype: str, device: str) -> Self:
        """Our own, of this interpreter's environment."""
        serve = [sys.executable, "-m", "l2v.app.cli", "serve", "--model", folder, "--dtype", dtype, "--device", device]
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
            post(self.url, [body(["a"])], clients=1)
        except (HTTPError, RuntimeError):
            return False
        return True

    def run(self, workload: Workload) -> Round:
        texts = [f"{workload.instruction} {text}".strip() for text in workload.texts]
        parts = [texts[start : start + _TEXTS] for start in range(0, len(texts), _TEXTS)]
        self._memory()  # from here on
        started = time.perf_counter()
        answers = post(self.url, list(map(body, parts)), _CLIENTS)
        seconds = time.perf_counter() - started
        memory = self._memory()
        rows = [row["embedding"] for answer in answers for row in json.loads(answer.content)["data"]]
        return Round(seconds, memory, np.array(rows, np.float32))

    def _memory(self) -> int:
        return 0 if self._device == "cuda" else peak(str(self._process.pid))


def _environment(**more: str) -> dict[str, str]:
    """Of another process: what is found here is found there, and this code too."""
    paths = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"} | more
