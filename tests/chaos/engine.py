"""A dead engine is detected: its thread dies, its device is lost, or a forward pass never returns."""

import asyncio
import time
from dataclasses import dataclass

import psutil

from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ask, texts
from tests.chaos.wire import Reply, Wire, get

# The engine_timeout in seconds; the default is two minutes.
TIMEOUT = 2.0
WAITING = 32
KINDS = {
    "die": "the engine thread dies",
    "lose": "the device is lost",
    "hang": f"a forward pass hangs (`engine_timeout` {TIMEOUT:g} s)",
}


@dataclass
class Ending:
    """How a server ended after its engine failed.

    Attributes:
        detected: seconds until each of `/health` and `/ready` returned 503.
        replies: to the waiting requests.
        status: exit status.
        seconds: time until the exit.
        message: last line of the log.
        zombies: number of zombie processes left.
    """

    detected: dict[str, float]
    replies: list[Reply]
    status: int
    seconds: float
    message: str
    zombies: int


async def run(share: float) -> list[Figure]:
    figures = []
    for kind, what in KINDS.items():
        ending = await _end(kind)
        statuses = sorted({reply.status for reply in ending.replies})
        limit = 5.0
        figures += [
            Figure(
                f"{what}: `/health` and `/ready` return 503",
                " and ".join(f"{ending.detected.get(path, float('inf')):.1f} s" for path in ("/health", "/ready")),
                f"≤ {limit:g} s",
                all(ending.detected.get(p, 99) <= limit for p in ("/health", "/ready")),
            ),
            Figure(
                "its waiting requests",
                f"{len(ending.replies)} with status {', '.join(map(str, statuses))}",
                f"{WAITING} with status 503",
                (statuses, len(ending.replies)) == ([503], WAITING),
            ),
            Figure(
                "its process",
                f"exit status {ending.status} after {ending.seconds:.1f} s, `{ending.message}`",
                "exit status 1, no zombies",
                ending.status == 1 and not ending.zombies,
            ),
        ]
    return figures


async def _end(kind: str) -> Ending:
    with ChaosServer("--engine-timeout", f"{TIMEOUT:g}") as server:
        server.wait_ready()
        wire = Wire(server.port)
        some = texts(WAITING)
        # The first request occupies the engine while the others are queued. The next forward pass is fatal.
        server.fail(slow=1.0)
        first = asyncio.create_task(wire.send(ask(some[:1])))
        await asyncio.sleep(0.4)
        waiting = [asyncio.create_task(wire.send(ask([text]))) for text in some]
        server.fail(fatal=kind)
        await first
        failed = time.monotonic()
        detected: dict[str, float] = {}
        while server.process.poll() is None and time.monotonic() < failed + 30:
            for path in ("/health", "/ready"):
                if (await wire.send(get(path), fresh=True)).status == 503:
                    detected.setdefault(path, time.monotonic() - failed)
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - failed
        status = await asyncio.to_thread(server.process.wait, 30)
        zombies = sum(process.status() == psutil.STATUS_ZOMBIE for process in psutil.Process().children(recursive=True))
        replies = list(await asyncio.gather(*waiting))
        await wire.close()
        return Ending(detected, replies, status, seconds, server.log.splitlines()[-1], zombies)
