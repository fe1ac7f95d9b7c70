"""Load generators: open loop, at a fixed rate, or closed loop, with clients that wait for responses."""

import asyncio
import time
from collections.abc import Callable

from tests.chaos.wire import Reply, Wire

Next = Callable[[], bytes]


async def open_loop(wire: Wire, rate: float, seconds: float, request: Next) -> list[Reply]:
    """Sends `rate` requests per second without waiting for responses. Latency counts from when a request was due."""
    started, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        due = started + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(wire.send(request(), due)))
    return await asyncio.gather(*tasks)


async def closed_loop(wire: Wire, clients: int, seconds: float, request: Next, *, fresh: bool = False) -> list[Reply]:
    """Runs `clients` clients, each of which waits for a response before it sends the next request."""
    end = time.monotonic() + seconds

    async def client() -> list[Reply]:
        replies = []
        while time.monotonic() < end:
            replies.append(await wire.send(request(), fresh=fresh))
        return replies

    return [reply for replies in await asyncio.gather(*(client() for _ in range(clients))) for reply in replies]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of the values do not exceed; 0 if there are no values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
