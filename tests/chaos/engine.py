"""A dead engine is seen: its thread dies, its device is lost, or a forward pass never comes back."""

import asyncio
import time
from dataclasses import dataclass

import psutil

from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ask, texts
from tests.chaos.wire import Reply, Wire, get

# What a forward pass may take here; by default two minutes.
TIMEOUT = 2.0
WAITING = 32
KINDS = {
    "die": "the engine thread is killed",
    "lose": "the device's context is lost",
    "hang": f"a forward pass hangs (`engine_timeout` {TIMEOUT:g} s)",
}


@dataclass
class Ending:
    """What was seen of a server whose engine went down.

    Attributes:
        seen: seconds until `/health` and `/ready` said 503.
        replies: of the requests that waited.
        status: of the process's end.
        seconds: until that end.
        words: its last line.
        rest: children or zombies that it left.
    """

    seen: dict[str, float]
    replies: list[Reply]
    status: int
    seconds: float
    words: str
    rest: int


async def run(share: float) -> list[Figure]:
    figures = []
    for kind, what in KINDS.items():
        ending = await _end(kind)
        statuses = sorted({reply.status for reply in ending.replies})
        limit = 5.0
        figures += [
            Figure(
                f"{what}: `/health` and `/ready` say 503",
                " and ".join(f"{ending.seen.get(path, float('inf')):.1f} s" for path in ("/health", "/ready")),
                f"within {limit:g} s",
                all(ending.seen.get(p, 99) <= limit for p in ("/health", "/ready")),
            ),
            Figure(
                "its waiting requests",
                f"{len(ending.replies)} answered {', '.join(map(str, statuses))}",
                f"{WAITING} answered 503",
                (statuses, len(ending.replies)) == ([503], WAITING),
            ),
            Figure(
                "its process",
                f"ended with status {ending.status} after {ending.seconds:.1f} s, `{ending.words}`",
                "status 1, none left behind",
                ending.status == 1 and not ending.rest,
            ),
        ]
    return figures


async def _end(kind: str) -> Ending:
    with ChaosServer("--engine-timeout", f"{TIMEOUT:g}") as server:
        server.wait_ready()
        wire = Wire(server.port)
        some = texts(WAITING)
        # The first keeps the engine busy while the others queue up; the pass that takes them is the last.
        server.fail(slow=1.0)
        first = asyncio.create_task(wire.send(ask(some[:1])))
        await asyncio.sleep(0.4)
        waiting = [asyncio.create_task(wire.send(ask([text]))) for text in some]
        server.fail(fatal=kind)
        await first
        failed = time.monotonic()
        seen: dict[str, float] = {}
        while server.process.poll() is None and time.monotonic() < failed + 30:
            for path in ("/health", "/ready"):
                if (await wire.send(get(path), fresh=True)).status == 503:
                    seen.setdefault(path, time.monotonic() - failed)
            await asyncio.sleep(0.02)
        seconds = time.monotonic() - failed
        status = await asyncio.to_thread(server.process.wait, 30)
        rest = sum(process.status() == psutil.STATUS_ZOMBIE for process in psutil.Process().children(recursive=True))
        replies = list(await asyncio.gather(*waiting))
        await wire.close()
        return Ending(seen, replies, status, seconds, server.log.splitlines()[-1], rest)
