"""What is measured: throughput in rounds that take engine after engine, latency by the number of clients."""

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from urllib3.exceptions import HTTPError

from bench.engines import Engine, InProcess, Server
from bench.posting import body, post
from bench.workloads import Workload

E = TypeVar("E", bound=Engine)


class Throughput:
    """Of engines on one workload, each compared with the first that was measured.

    Attributes:
        found: the `texts` and `tokens`, and those with padding (`padded`) for who sorts texts by length and takes 32 at
            a time, as llm2vec and sentence-transformers do; for each of the `engines` its `seconds` by round, `memory`
            and the `least_cosine` of a text's vector to the first engine's; and what the machine's matrix products
            reached around the first one's (`rates`).
    """

    def __init__(self, workload: Workload, lengths: Sequence[int]) -> None:
        """`lengths` are the tokens of each text, as our engine has them."""
        self._workload = workload
        self._ours: NDArray[np.float32] | None = None
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
        """Rounds in which each engine takes the workload once.

        Returns:
            The engines that came through; of the others nothing is kept.

        Raises:
            RuntimeError: if the very first one, with which all are compared, does not.
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
                print(f"left out: {engine.name} ({error})", file=sys.stderr)
                alive.remove(engine)
                self.found["engines"].pop(engine.name, None)
        return alive

    def _round(self, engine: Engine, *, leads: bool) -> None:
        around = isinstance(engine, InProcess) and leads
        before = self._rate(engine) if around else 0
        done = engine.run(self._workload)
        if around:
            self.found["rates"].append((before + self._rate(engine)) / 2)
        result = self.found["engines"].setdefault(engine.name, {"seconds": []})
        result["seconds"].append(done.seconds)
        result["memory"] = max(done.memory, result.get("memory", 0))
        self._ours = done.vectors if self._ours is None else self._ours
        lengths = np.linalg.norm(self._ours, axis=1) * np.linalg.norm(done.vectors, axis=1)
        cosines = (self._ours * done.vectors).sum(1) / lengths
        result["least_cosine"] = min(float(cosines.min()), result.get("least_cosine", 1.0))

    def _rate(self, engine: InProcess) -> float:
        """Of products of a full batch, or of all tokens where those are fewer."""
        rate: float = engine.ask(matmul=self.found["tokens"])["rate"]
        return rate


def answer(count: int = 1000, dimensions: int = 4096) -> float:
    """Seconds in which the service makes JSON of so many vectors; the least of five, as that is all its own work."""
    from l2v.app.engine.vectors import finish
    from l2v.app.http.responses import (
        Long,
        to_json,
    )  # here, since engines in process need none of the service's libraries

    rows = np.random.default_rng(0).normal(size=(count, dimensions)).astype(np.float32)

    async def write() -> None:
        await to_json({"embeddings": Long(finish(rows, None, True), dimensions)})

    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        asyncio.run(write())
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def latency(server: Server, workload: Workload, clients: int, requests: int) -> dict[str, float]:
    """Seconds of requests with one text each, from a number of clients at once.

    Returns:
        How many (`requests`), the percentiles `p50` and `p99` and the longest (`max`); for our own server `forward`
        too, the median of what it says of its forward.
    """
    texts = [f"{workload.instruction} {text}".strip() for text in workload.texts]
    bodies = [body([texts[number % len(texts)]]) for number in range(requests)]
    post(server.url, bodies[:clients], clients)
    started = time.perf_counter()
    answers = post(server.url, bodies, clients)
    wall = time.perf_counter() - started
    seconds = [answer.seconds for answer in answers]
    found = {
        "requests": requests,
        "p50": float(np.percentile(seconds, 50)),
        "p99": float(np.percentile(seconds, 99)),
        "max": max(seconds),
        "requests_per_second": requests / wall,
    }
    if forwards := [forward for answer in answers if (forward := _forward(answer.headers.get("Server-Timing", "")))]:
        found["forward"] = statistics.median(forwards)
    return found


def _forward(timing: str) -> float | None:
    """Seconds of the forward pass in a Server-Timing header."""
    parts = dict(part.strip().partition(";dur=")[::2] for part in timing.split(","))
    return float(parts["forward"]) / 1000 if "forward" in parts else None
