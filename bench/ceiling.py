"""The front end's ceiling: CPU time per request with an encoder that costs nothing.

    python -m bench.ceiling

`wrk` (Debian's package) sends one short query per request on 32 connections. Every vector has 4,096 dimensions.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from urllib.request import urlopen

import numpy as np
import psutil
from numpy.typing import NDArray

import l2v.app.cli
from l2v.models import Encoder, Encoding
from l2v.models.settings import ModelSettings

_DIMENSIONS, _CONNECTIONS, _READY_SECONDS = 4096, 32, 300
_QUERY = "where does the cat sit?"
REQUESTS: dict[str, tuple[str, dict[str, str]]] = {
    "/embed": ("/embed", {"inputs": _QUERY}),
    "/embed, base64": ("/embed", {"inputs": _QUERY, "encoding_format": "base64"}),
    "/v1/embeddings, base64": ("/v1/embeddings", {"input": _QUERY, "model": "l2v", "encoding_format": "base64"}),
}
_VECTOR = np.random.default_rng(0).standard_normal(_DIMENSIONS).astype(np.float32)


@dataclass(frozen=True)
class FreeEncoder(Encoder):
    """The built-in model's tokenizer, and one vector for every text."""

    @property
    def width(self) -> int:
        return _DIMENSIONS

    def forward(self, encodings: list[Encoding]) -> list[NDArray[np.float32]]:
        return [_VECTOR] * len(encodings)


def serve(port: str) -> None:
    """Runs `l2v serve` with a `FreeEncoder`."""
    load = ModelSettings.load

    def load_free(settings: ModelSettings, *, prepack: bool) -> Encoder:
        encoder = load(settings, prepack=prepack)
        return FreeEncoder(**{name: getattr(encoder, name) for name in Encoder.__dataclass_fields__})

    ModelSettings.load = load_free  # type: ignore[method-assign, assignment]
    sys.argv = ["l2v", "serve", "--port", port, "--log-level", "warning"]
    l2v.app.cli.main()


def measure(process: psutil.Process, url: str, path: str, body: dict[str, str], seconds: int) -> tuple[float, float]:
    """Returns (requests per second, milliseconds of the server's CPU time per request)."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f"wrk.method = 'POST'\nwrk.body = {json.dumps(json.dumps(body))}\n"
            "wrk.headers['Content-Type'] = 'application/json'\n"
        )
        script.flush()
        command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "-s", script.name, url + path]
        before = sum(process.cpu_times()[:2])
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = sum(process.cpu_times()[:2]) - before
    if "Non-2xx" in output:
        raise RuntimeError(output)
    requests = int(re.findall(r"(\d+) requests in", output)[0])
    return requests / seconds, 1000 * spent / requests


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ceiling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="duration of each measurement")
    parser.add_argument("--serve", metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    port = str(20_000 + os.getpid() % 20_000)
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "bench.ceiling", "--serve", port])
    try:
        _wait_ready(url)
        process = psutil.Process(server.pid)
        rounds = [
            {name: measure(process, url, *request, given.seconds) for name, request in REQUESTS.items()}
            for _ in range(given.rounds)
        ]
    finally:
        server.kill()
        server.wait()
    print("| request | requests/s | CPU ms per request |", "|---|---|---|", sep="\n")
    for name in REQUESTS:
        rate, cpu = (statistics.median(each[name][part] for each in rounds) for part in (0, 1))
        print(f"| {name} | {rate:,.0f} | {cpu:.2f} |")


def _wait_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            with urlopen(f"{url}/ready"):  # noqa: S310
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()
