"""The front end's ceiling: CPU time per request with an encoder that costs nothing.

    python -m bench.ceiling

`wrk` (Debian's package) sends one short query per request on 32 connections. Every vector has 4,096 dimensions. The
services with one process and with several (`http_workers`) take turns, so that other load affects all alike.
"""

import argparse
import json
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

import numpy as np
import psutil
from numpy.typing import NDArray

import l2v.app.cli
from bench import ceiling_report
from bench.__main__ import RESULTS
from bench.ceiling_report import ENGINE, FRONT_END, LOAD
from bench.origin import origin
from l2v.models import Encoder, Encoding
from l2v.models.settings import ModelSettings

_DIMENSIONS, _CONNECTIONS, _READY_SECONDS = 4096, 32, 300
_QUERY = "where does the cat sit?"
REQUESTS: dict[str, tuple[str, dict[str, str] | None]] = {
    "/embed": ("/embed", {"inputs": _QUERY}),
    "/embed, base64": ("/embed", {"inputs": _QUERY, "encoding_format": "base64"}),
    "/v1/embeddings, base64": ("/v1/embeddings", {"input": _QUERY, "model": "l2v", "encoding_format": "base64"}),
    "/health": ("/health", None),
}
_VECTOR = np.random.default_rng(0).standard_normal(_DIMENSIONS).astype(np.float32)
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class FreeEncoder(Encoder):
    """The built-in model's tokenizer, and one vector for every text."""

    @property
    def width(self) -> int:
        return _DIMENSIONS

    def forward(self, encodings: list[Encoding]) -> list[NDArray[np.float32]]:
        return [_VECTOR] * len(encodings)


def serve(arguments: list[str]) -> None:
    """Runs `l2v serve` with a `FreeEncoder`."""
    load = ModelSettings.load

    def load_free(settings: ModelSettings, *, prepack: bool) -> Encoder:
        encoder = load(settings, prepack=prepack)
        return FreeEncoder(**{name: getattr(encoder, name) for name in Encoder.__dataclass_fields__})

    ModelSettings.load = load_free  # type: ignore[method-assign, assignment]
    sys.argv = ["l2v", "serve", "--log-level", "warning", *arguments]
    l2v.app.cli.main()


class Server:
    """A service with a free encoder, in one process or in several."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        flags = ["--port", str(port), "--http-workers", str(workers)]
        self._command = [sys.executable, "-m", "bench.ceiling", "--serve", *flags]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command)
        deadline = time.monotonic() + _READY_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError("the service does not start")
            time.sleep(0.1)
        engine = psutil.Process(self._process.pid)
        front_ends = [child for child in engine.children() if "l2v.app.workers.frontend" in child.cmdline()]
        self.processes = {ENGINE: [engine], FRONT_END: front_ends} if front_ends else {FRONT_END: [engine]}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait()

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/ready"):  # noqa: S310
                return True
        except OSError:
            return False

    def memory(self) -> dict[str, int]:
        """Resident bytes of a process of each kind that it shares with no other process."""
        return {kind: processes[0].memory_full_info().uss for kind, processes in self.processes.items()}

    def measure(self, path: str, body: dict[str, str] | None, seconds: int) -> dict[str, Any]:
        """Loads one path.

        Returns:
            `rate` in requests per second, `p50` and `p99` in milliseconds, `cpu` in milliseconds per request by kind of
            process, and `cores`, the number of cores that other programs left.
        """
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            if body:
                script.write(f"wrk.method = 'POST'\nwrk.body = {json.dumps(json.dumps(body))}\n")
                script.write("wrk.headers['Content-Type'] = 'application/json'\n")
            script.flush()
            command = [
                "wrk",
                "-t1",
                f"-c{_CONNECTIONS}",
                f"-d{seconds}s",
                "--latency",
                "-s",
                script.name,
                self.url + path,
            ]
            before, started = self._spent(), time.perf_counter()
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            elapsed = time.perf_counter() - started
            spent = {kind: value - before[kind] for kind, value in self._spent().items()}
        if "Non-2xx" in output:
            raise RuntimeError(output)
        requests = int(re.findall(r"(\d+) requests in", output)[0])
        others = spent.pop("all") - sum(spent.values())
        p50, p99 = (
            float(value) * _MILLISECONDS[unit] for value, unit in re.findall(r"(?:50|99)%\s+([\d.]+)(us|ms|s)", output)
        )
        return {
            "rate": requests / elapsed,
            "p50": p50,
            "p99": p99,
            "cpu": {kind: 1000 * value / requests for kind, value in spent.items()},
            "cores": (os.cpu_count() or 1) - max(0.0, others) / elapsed,
        }

    def _spent(self) -> dict[str, float]:
        """Seconds of CPU time by kind of process, and of all programs on the machine."""
        spent = {
            kind: sum(sum(process.cpu_times()[:2]) for process in processes)
            for kind, processes in self.processes.items()
        }
        load, machine = resource.getrusage(resource.RUSAGE_CHILDREN), psutil.cpu_times()
        busy = sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice
        return {**spent, LOAD: load.ru_utime + load.ru_stime, "all": busy}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ceiling", description=__doc__)
    cores = os.cpu_count() or 1
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, *([4] if cores >= 8 else [])])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="duration of each measurement")
    parser.add_argument("--name", default="ceiling", help="file name of the results")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    rounds: dict[int, dict[str, list[Any]]] = {workers: {name: [] for name in REQUESTS} for workers in given.workers}
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(workers)) for workers in given.workers]
        for _ in range(given.rounds):
            for name, request in REQUESTS.items():
                for server in servers:
                    rounds[server.workers][name].append(server.measure(*request, given.seconds))
        memory = {server.workers: server.memory() for server in servers}
    results = {
        **origin("bench.ceiling"),
        "cores": cores,
        "memory": memory,
        "requests": {
            str(workers): {name: _median(found) for name, found in by_name.items()}
            for workers, by_name in rounds.items()
        },
    }
    results = json.loads(json.dumps(results))
    (RESULTS / f"{given.name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    page = ceiling_report.table(results)
    (RESULTS / f"{given.name}.md").write_text(f"{page}\n", encoding="utf-8")
    print(page)


def _median(found: list[Any]) -> Any:
    """The median of each number of all rounds."""
    if isinstance(found[0], dict):
        return {name: _median([each[name] for each in found]) for name in found[0]}
    return round(statistics.median(found), 4)


if __name__ == "__main__":
    main()
