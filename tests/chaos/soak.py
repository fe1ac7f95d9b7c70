"""A long run: mixed traffic on every surface, including clients that disconnect."""

import asyncio
import random
import time
from dataclasses import dataclass

import numpy as np

from tests.chaos.figures import Figure
from tests.chaos.load import percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Wire, get, open_connection, post

CLIENTS, SAMPLE_SECONDS = 4, 2.0
# The fraction of the run until caches, arenas and connections have reached their size.
WARM_UP = 0.2
SOME = texts(500)
# Kinds of requests, with their weights.
KINDS = {"one": 60, "some": 20, "many": 4, "similarity": 5, "openai": 5, "tei": 5, "leave": 5, "wrong": 2, "metrics": 1}


@dataclass(frozen=True)
class Sample:
    """The resources in use at a time, in seconds from the start."""

    at: float
    memory: int
    descriptors: int


class Traffic:
    """Clients that send requests of all kinds.

    Attributes:
        requests: number of requests.
        errors: number of requests without the expected response.
        times: (start, latency) of the one-input requests, in seconds.
    """

    def __init__(self, server: ChaosServer, wire: Wire, references: ReferenceVectors) -> None:
        self._server, self._wire, self._references = server, wire, references
        self._chance = random.Random(0)
        self.requests = self.errors = 0
        self.times: list[tuple[float, float]] = []

    async def client(self, started: float, seconds: float) -> None:
        while (at := time.monotonic() - started) < seconds:
            (kind,) = self._chance.choices(list(KINDS), list(KINDS.values()))
            spent, correct = await self._act(kind)
            self.requests += 1
            self.errors += not correct
            if kind == "one":
                self.times.append((at, spent))
            await asyncio.sleep(self._chance.expovariate(20))

    async def _act(self, kind: str) -> tuple[float, bool]:
        """Sends a request. Returns (latency in seconds, whether the response is as expected)."""
        chance, wire = self._chance, self._wire
        if kind in ("one", "some", "many"):
            inputs = chance.sample(SOME, {"one": 1, "some": 16, "many": 200}[kind])
            reply = await wire.send(ask(inputs))
            return reply.seconds, self._references.match(inputs, reply)
        if kind == "leave":
            _, writer = await open_connection(self._server.port)
            writer.write(ask(chance.sample(SOME, 50)))
            await asyncio.sleep(0.05 * chance.random())
            writer.close()
            return 0.0, True
        request, status = {
            "similarity": (post("/similarity", {"queries": SOME[:2], "documents": chance.sample(SOME, 20)}), 200),
            "openai": (post("/v1/embeddings", {"input": chance.sample(SOME, 4), "model": "demo"}), 200),
            "tei": (post("/tei/embed", {"inputs": chance.sample(SOME, 4)}), 200),
            "wrong": (post("/embed", {"inputs": [""]}), 422),
            "metrics": (get("/metrics"), 200),
        }[kind]
        reply = await wire.send(request)
        return reply.seconds, reply.status == status


async def run(seconds: float) -> list[Figure]:
    with ChaosServer("--log-level", "warning") as server:
        server.wait_ready()
        wire = Wire(server.port)
        traffic = Traffic(server, wire, await ReferenceVectors.compute(wire, SOME))
        started, samples = time.monotonic(), []
        clients = [asyncio.create_task(traffic.client(started, seconds)) for _ in range(CLIENTS)]
        while (at := time.monotonic() - started) < seconds:
            samples.append(Sample(at, server.memory, server.descriptors))
            await asyncio.sleep(SAMPLE_SECONDS)
        await asyncio.gather(*clients)
        await wire.close()
    return _figures(traffic, [sample for sample in samples if sample.at > WARM_UP * seconds], seconds)


def _figures(traffic: Traffic, samples: list[Sample], seconds: float) -> list[Figure]:
    memory = np.array([sample.memory for sample in samples])
    slope = np.polyfit([sample.at for sample in samples], memory, 1)[0] * 600 / memory[0]
    quarter = (1 - WARM_UP) * seconds / 4
    first = [spent for at, spent in traffic.times if WARM_UP * seconds < at <= WARM_UP * seconds + quarter]
    last = [spent for at, spent in traffic.times if at > seconds - quarter]
    change = percentile(last, 0.5) / percentile(first, 0.5) - 1
    descriptors = [sample.descriptors for sample in samples]
    return [
        Figure("duration", f"{seconds / 60:.1f} min"),
        Figure("requests", f"{traffic.requests:,}"),
        Figure("requests without the expected response", f"{traffic.errors}", "0", traffic.errors == 0),
        Figure(
            "resident memory after warm-up",
            f"{memory[0] / 2**20:.0f} → {memory[-1] / 2**20:.0f} MiB, {100 * slope:+.2f} % in 10 min",
            "≤ +1 % in 10 min",
            slope <= 0.01,
            timing=seconds < 600,
        ),
        Figure("file descriptors", f"{min(descriptors)} to {max(descriptors)}"),
        Figure(
            "latency of one-input requests in the first and last quarter after warm-up, p50",
            f"{1000 * percentile(first, 0.5):.0f} ms, {1000 * percentile(last, 0.5):.0f} ms ({100 * change:+.0f} %)",
            "≤ +20 %",
            change <= 0.2,
            timing=True,
        ),
        Figure("the same, p99", f"{1000 * percentile(first, 0.99):.0f} ms, {1000 * percentile(last, 0.99):.0f} ms"),
    ]
