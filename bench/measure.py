"""What is measured: throughput in rounds that take engine after engine, latency by the number of clients."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.engines import Engine, InProcess, Server
from bench.posting import body, post
from bench.workloads import Workload


def throughput(engines: Sequence[Engine], workload: Workload, rounds: int, lengths: Sequence[int]) -> dict[str, Any]:
    """Rounds in which each engine takes the workload once.

    Args:
        engines: the first is the one that the others are compared with.
        workload: what they embed.
        rounds: how many.
        lengths: tokens of each text, as the first engine has them.

    Returns:
        For each engine its `seconds` by round, `memory` and `cosine` to the first engine's vector; with the `texts`,
        the `tokens`, and for the first engine what the machine's matrix products reached around each round (`rates`).
    """
    results: dict[str, Any] = {engine.name: {"seconds": []} for engine in engines}
    rates: list[float] = []
    firsts: dict[str, list[float]] = {}
    for _ in range(rounds):
        for engine in engines:
            around = isinstance(engine, InProcess) and engine is engines[0]
            before = engine.ask(matmul=True)["rate"] if around else 0
            done = engine.run(workload)
            if around:
                rates.append((before + engine.ask(matmul=True)["rate"]) / 2)
            results[engine.name]["seconds"].append(done.seconds)
            results[engine.name]["memory"] = done.memory
            firsts[engine.name] = done.first
    ours = firsts[engines[0].name]
    for name, first in firsts.items():
        results[name]["cosine"] = float(np.dot(ours, first) / np.linalg.norm(ours) / np.linalg.norm(first))
    return {"texts": len(workload.texts), "tokens": sum(lengths), "rates": rates, "engines": results}


def answer(count: int = 1000, dimensions: int = 4096) -> float:
    """Seconds in which the service makes JSON of so many vectors; the least of five, as that is all its own work."""
    from app.body import Long, to_json  # here, since engines in process need none of the service's libraries
    from app.vectors import finish

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
        The percentiles `p50` and `p99`; for our own server `forward` too, the median of what it says of its forward.
    """
    texts = [f"{workload.instruction} {text}".strip() for text in workload.texts]
    bodies = [body([texts[number % len(texts)]]) for number in range(requests)]
    post(server.url, bodies[:clients], clients)
    started = time.perf_counter()
    answers = post(server.url, bodies, clients)
    wall = time.perf_counter() - started
    seconds = [answer.seconds for answer in answers]
    found = {
        "p50": float(np.percentile(seconds, 50)),
        "p99": float(np.percentile(seconds, 99)),
        "requests_per_second": requests / wall,
    }
    if forwards := [forward for answer in answers if (forward := _forward(answer.headers.get("Server-Timing", "")))]:
        found["forward"] = statistics.median(forwards)
    return found


def _forward(timing: str) -> float | None:
    """Seconds of the forward pass in a Server-Timing header."""
    parts = dict(part.strip().partition(";dur=")[::2] for part in timing.split(","))
    return float(parts["forward"]) / 1000 if "forward" in parts else None
