"""Overload: five times the server's capacity is offered in an open loop."""

import asyncio
import itertools
import statistics
import threading
import time

from tests.chaos.figures import Figure
from tests.chaos.load import closed_loop, open_loop, percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Reply, Wire

SECONDS, CAPACITY_SECONDS, FACTOR = 60.0, 15.0, 5
# Inputs per request: many, so that sending and rejecting requests takes little CPU time from the model.
INPUTS = 256
# Enough clients for full batches, but too few to get a 429.
CLIENTS = 4
# Less than a second's work, so that waits are short and rejections early.
QUEUE_TOKENS = 32768
SOME = texts(4096)
BODIES = [SOME[start : start + INPUTS] for start in range(0, len(SOME), INPUTS)]


class PeakMemory:
    """Samples the resident memory of a server in a thread, and keeps the peak."""

    def __init__(self, server: ChaosServer) -> None:
        self._server, self.peak = server, server.memory
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.peak = max(self.peak, self._server.memory)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return self.peak


async def run(share: float) -> list[Figure]:
    with ChaosServer("--max-queue-tokens", str(QUEUE_TOKENS)) as server:
        server.wait_ready()
        wire = Wire(server.port)
        checked = BODIES[: 2 if share == 1 else 1]
        references = await ReferenceVectors.compute(wire, [text for body in checked for text in body])
        bodies = itertools.cycle([ask(body) for body in BODIES])

        def request() -> bytes:
            return next(bodies)

        async def capacity() -> float:
            """The responses per second that arrive within the time, as goodput counts them."""
            seconds = max(4.0, CAPACITY_SECONDS * share)
            end = time.monotonic() + seconds
            return sum(reply.done <= end for reply in await closed_loop(wire, CLIENTS, seconds, request)) / seconds

        await closed_loop(wire, CLIENTS, 3.0, request)
        unloaded = statistics.median([(await wire.send(ask(SOME[:1]))).seconds for _ in range(20)])
        capacities, before = [await capacity()], server.memory

        seconds, offered = max(5.0, SECONDS * share), FACTOR * capacities[0]
        memory, started = PeakMemory(server), time.monotonic()
        replies = await open_loop(wire, offered, seconds, request)
        recovery = await _recovery(wire, started + seconds, unloaded)
        correct = all([references.match(body, await wire.send(ask(body))) for body in checked])
        peak, after = memory.stop(), server.memory
        capacities.append(await capacity())  # again, since the machine's own speed changes
        await wire.close()
    measured = " and ".join(f"{each:.1f}" for each in capacities)
    return [
        Figure("capacity before and after, closed loop", f"{measured} requests/s of {INPUTS} inputs"),
        Figure("offered load, open loop", f"{offered:.0f} requests/s for {seconds:.0f} s"),
        *_figures(replies, started + seconds, seconds, statistics.mean(capacities)),
        Figure(
            "resident memory at capacity, peak, afterwards",
            " · ".join(f"{n / 2**20:.0f} MiB" for n in (before, peak, after)),
            "peak ≤ 1.25 × at capacity",
            peak <= 1.25 * before,
        ),
        Figure(
            "time until one-input requests take at most twice their unloaded time",
            f"{recovery:.2f} s",
            "≤ 2 s",
            recovery <= 2,
            timing=True,
        ),
        Figure("vectors correct afterwards", "yes" if correct else "no", "yes", correct),
    ]


def _figures(replies: list[Reply], end: float, seconds: float, capacity: float) -> list[Figure]:
    good = [reply for reply in replies if reply.status == 200]
    rejected = [reply for reply in replies if reply.status == 429]
    goodput = sum(reply.done <= end for reply in good) / seconds
    has_retry_after = all(int(reply.headers.get("retry-after", "0")) >= 1 for reply in rejected)
    slowest = percentile([reply.seconds for reply in rejected], 0.99)
    waited = percentile([reply.seconds for reply in good], 0.99)
    other = len(replies) - len(good) - len(rejected)
    return [
        Figure(
            "goodput",
            f"{goodput:.1f} requests/s, {100 * goodput / capacity:.0f} % of the mean capacity",
            "≥ 90 %",
            goodput >= 0.9 * capacity,
            timing=True,
        ),
        Figure("responses other than 200 and 429", f"{other} of {len(replies):,}", "0", other == 0),
        Figure(
            "429 responses with Retry-After",
            f"{len(rejected):,}" if has_retry_after else "not all",
            "all",
            has_retry_after and bool(rejected),
        ),
        Figure(
            "latency of 429 responses, p50 and p99",
            f"{1000 * percentile([r.seconds for r in rejected], 0.5):.0f} ms, {1000 * slowest:.0f} ms",
            "p99 ≤ 50 ms",
            slowest <= 0.05,
            timing=True,
        ),
        Figure("latency of 200 responses, p99", f"{waited:.2f} s"),
    ]


async def _recovery(wire: Wire, end: float, unloaded: float) -> float:
    """Seconds from the end of the load until a one-input request takes at most twice its unloaded time."""
    while True:
        reply = await wire.send(ask(SOME[:1]))
        if (reply.status == 200 and reply.seconds <= 2 * unloaded) or reply.done > end + 30:
            return max(0.0, reply.done - end)
        await asyncio.sleep(0.02)
