"""Load on a server: open loop, by a clock that waits for nobody, or closed loop, by clients that wait for answers."""

import asyncio
import time
from collections.abc import Callable

from tests.chaos.wire import Reply, Wire

Next = Callable[[], bytes]


async def open_loop(wire: Wire, rate: float, seconds: float, request: Next) -> list[Reply]:
    """Sends `rate` requests a second, whatever comes of them; each one's time counts from when it was due."""
    begun, tasks = time.monotonic(), []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(wire.send(request(), due)))
    return await asyncio.gather(*tasks)


async def closed_loop(wire: Wire, clients: int, seconds: float, request: Next, *, fresh: bool = False) -> list[Reply]:
    """So many clients, each of which sends its next request when it has its answer."""
    end = time.monotonic() + seconds

    async def client() -> list[Reply]:
        replies = []
        while time.monotonic() < end:
            replies.append(await wire.send(request(), fresh=fresh))
        return replies

    return [reply for replies in await asyncio.gather(*(client() for _ in range(clients))) for reply in replies]


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
