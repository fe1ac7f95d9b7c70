"""The measurements: throughput, in rounds that visit every engine, and latency by number of clients."""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError

from bench.engines import BenchEngine, LibraryEngine, ServerEngine
from bench.posting import post
from bench.workloads import Workload

E = TypeVar("E", bound=BenchEngine)


class Throughput:
    """The throughput of engines on one workload, compared with the first engine.

    Attributes:
        found: the results. `texts` and `tokens` are counts; `padded` is the number of tokens with padding, in batches
            of 32 sorted by length, as llm2vec and sentence-transformers make them. `engines` holds, for each engine,
            `seconds` by round, peak `memory`, and the lowest cosine of a vector to one of the first engine's: as it
            pools (`least_cosine`), and with all tokens pooled (`least_cosine_of_all`).
            `rates` are the FLOP/s of matrix products, measured around each round of the first engine.
    """

    def __init__(self, workload: Workload, lengths: Sequence[int]) -> None:
        """`lengths` are our engine's token counts of the texts."""
        self._workload = workload
        self._ours: dict[str, NDArray[np.float32]] = {}
        longest_first = sorted(lengths, reverse=True)
        batches = [longest_first[start : start + 32] for start in range(0, len(lengths), 32)]
        self.found: dict[str, Any] = {
            "texts": len(lengths),
            "tokens": sum(lengths),
            "padded": sum(batch[0] * len(batch) for batch in batches),
            "rates": [],
            "engines": {},
        }

    def measure(self, engines: Sequence[E], rounds: int) -> list[E]:
        """Run rounds in which each engine embeds the workload once.

        Returns:
            The engines that did not fail; the results of the others are dropped.

        Raises:
            RuntimeError: if the first engine fails, since all others are compared with it.
        """
        alive = list(engines)
        leader = None if self.found["engines"] else alive[0]
        for engine in rounds * alive:
            if engine not in alive:
                continue
            try:
                self._round(engine, leads=engine is leader)
            except (RuntimeError, OSError, HTTPError) as error:
                if engine is leader:
                    raise
                print(f"skipped: {engine.name} ({error})", file=sys.stderr)
                alive.remove(engine)
                self.found["engines"].pop(engine.name, None)
        return alive

    def _round(self, engine: BenchEngine, *, leads: bool) -> None:
        measure_rate = isinstance(engine, LibraryEngine) and leads
        before = self._rate(engine) if measure_rate else 0
        done = engine.run(self._workload)
        if measure_rate:
            self.found["rates"].append((before + self._rate(engine)) / 2)
        result = self.found["engines"].setdefault(engine.name, {"seconds": []})
        result["seconds"].append(done.seconds)
        result["memory"] = max(done.memory, result.get("memory", 0))
        if not self._ours:
            self._ours["least_cosine"] = done.vectors
            if isinstance(engine, LibraryEngine):
                self._ours["least_cosine_of_all"] = engine.pool_all(self._workload)
        for name, vectors in self._ours.items():
            lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(done.vectors, axis=1)
            cosines = (vectors * done.vectors).sum(1) / lengths
            result[name] = min(float(cosines.min()), result.get(name, 1.0))

    def _rate(self, engine: LibraryEngine) -> float:
        """FLOP/s of matrix products with the rows of a full batch, or of the whole workload if that is smaller."""
        rate: float = engine.ask(matmul=self.found["tokens"])["rate"]
        return rate


def response_seconds(count: int = 1000, dimensions: int = 4096) -> float:
    """Seconds that the service takes to serialise vectors as JSON; the minimum of five, which has the least noise."""
    # Imported here, since library engines run without the service's libraries.
    from l2v.app.engine.vectors import postprocess
    from l2v.app.http.responses import ChunkedList, json_response

    rows = np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)

    async def write() -> None:
        await json_response({"embeddings": ChunkedList.of(postprocess(rows, None, True), dimensions)})

    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        asyncio.run(write())
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def latency(server: ServerEngine, workload: Workload, clients: int, requests: int) -> dict[str, float]:
    """Measure the latency of requests with one text each, from concurrent clients.

    Returns:
        The number of `requests`, their `p50`, `p99` and `max` in seconds, and `requests_per_second`; for our own server
        also `forward`, the median time of its forward pass.
    """
    texts = server.prepare(workload).texts
    bodies = [server.body([texts[number % len(texts)]]) for number in range(requests)]
    post(server.url, bodies[:clients], clients)
    started = time.perf_counter()
    responses = post(server.url, bodies, clients)
    wall = time.perf_counter() - started
    seconds = [response.seconds for response in responses]
    found = {
        "requests": requests,
        "p50": float(np.percentile(seconds, 50)),
        "p99": float(np.percentile(seconds, 99)),
        "max": max(seconds),
        "requests_per_second": requests / wall,
    }
    timings = [_forward(response.headers.get("Server-Timing", "")) for response in responses]
    if forwards := [forward for forward in timings if forward]:
        found["forward"] = statistics.median(forwards)
    return found


def _forward(timing: str) -> float | None:
    """Seconds of the forward pass in a Server-Timing header."""
    parts = dict(part.strip().partition(";dur=")[::2] for part in timing.split(","))
    return float(parts["forward"]) / 1000 if "forward" in parts else None
