"""Overload is orderly: five times what the server can do is offered, open loop."""

import asyncio
import itertools
import statistics
import threading
import time

from tests.chaos.figures import Figure
from tests.chaos.load import closed_loop, open_loop, percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import Known, ask, texts
from tests.chaos.wire import Reply, Wire

SECONDS, CAPACITY_SECONDS, FACTOR = 60.0, 15.0, 5
# Large requests, so that those who send and refuse them, on the same cores, take little from who computes.
INPUTS = 256
# So many that batches are full, and none is refused.
CLIENTS = 4
# Tokens that may wait: less than a second's work, as one sets it who would rather refuse than let callers wait.
QUEUE_TOKENS = 32768
SOME = texts(4096)
BODIES = [SOME[start : start + INPUTS] for start in range(0, len(SOME), INPUTS)]


class Memory:
    """The highest resident memory while it watches."""

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
        known = await Known.learn(wire, [text for body in checked for text in body])
        bodies = itertools.cycle([ask(body) for body in BODIES])

        def request() -> bytes:
            return next(bodies)

        seconds = max(4.0, CAPACITY_SECONDS * share)
        await closed_loop(wire, CLIENTS, 3.0, request)
        calm = statistics.median([(await wire.send(ask(SOME[:1]))).seconds for _ in range(20)])
        capacity = len(await closed_loop(wire, CLIENTS, seconds, request)) / seconds
        before = server.memory

        seconds = max(5.0, SECONDS * share)
        memory, started = Memory(server), time.monotonic()
        replies = await open_loop(wire, FACTOR * capacity, seconds, request)
        recovery = await _recovery(wire, started + seconds, calm)
        # The first round of bodies again, now in calm: their vectors are right, and so were those before.
        right = all([known.right(body, await wire.send(ask(body))) for body in checked])
        peak, after = memory.stop(), server.memory
        await wire.close()
    return [
        Figure("capacity, closed loop", f"{capacity:.1f} requests/s of {INPUTS} inputs"),
        Figure("offered, open loop", f"{FACTOR * capacity:.0f} requests/s for {seconds:.0f} s"),
        *_answers(replies, started + seconds, seconds, capacity),
        Figure(
            "resident memory at capacity, peak, after",
            " · ".join(f"{n / 2**20:.0f} MiB" for n in (before, peak, after)),
            "peak ≤ 1.25 × that at capacity",
            peak <= 1.25 * before,
        ),
        Figure(
            "from the last offer to one-input answers in twice their calm time",
            f"{recovery:.2f} s",
            "≤ 2 s",
            recovery <= 2,
            timing=True,
        ),
        Figure("vectors right afterwards", "yes" if right else "no", "yes", right),
    ]


def _answers(replies: list[Reply], end: float, seconds: float, capacity: float) -> list[Figure]:
    good = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 429]
    goodput = sum(reply.done <= end for reply in good) / seconds
    told = all(int(reply.headers.get("retry-after", "0")) >= 1 for reply in refused)
    slowest = percentile([reply.seconds for reply in refused], 0.99)
    waited = percentile([reply.seconds for reply in good], 0.99)
    other = len(replies) - len(good) - len(refused)
    return [
        Figure(
            "goodput",
            f"{goodput:.1f} requests/s, {100 * goodput / capacity:.0f} % of capacity",
            "≥ 90 %",
            goodput >= 0.9 * capacity,
            timing=True,
        ),
        Figure("answers other than 200 and 429", f"{other} of {len(replies):,}", "0", other == 0),
        Figure("refusals with Retry-After", f"{len(refused):,}" if told else "not all", "all", told and bool(refused)),
        Figure(
            "refusals, p50 and p99",
            f"{1000 * percentile([r.seconds for r in refused], 0.5):.0f} ms, {1000 * slowest:.0f} ms",
            "p99 ≤ 50 ms",
            slowest <= 0.05,
            timing=True,
        ),
        Figure("answers, p99", f"{waited:.2f} s"),
    ]


async def _recovery(wire: Wire, end: float, calm: float) -> float:
    """Seconds from the end of the load until one-input requests are answered as quickly as before it."""
    while True:
        reply = await wire.send(ask(SOME[:1]))
        if (reply.status == 200 and reply.seconds <= 2 * calm) or reply.done > end + 30:
            return max(0.0, reply.done - end)
        await asyncio.sleep(0.02)
