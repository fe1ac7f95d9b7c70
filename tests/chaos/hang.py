"""Nothing hangs: whatever fails, each request gets a response or a refused connection by its deadline."""

import asyncio
import random
import signal
from collections import Counter

from tests.chaos.faults import NOT_FINITE, RAISES
from tests.chaos.figures import Figure
from tests.chaos.load import open_loop
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ask, texts
from tests.chaos.wire import Reply, Wire

REQUESTS, RATE = 10_000, 100.0
DEADLINE, ENGINE_TIMEOUT = 4.0, 8.0
FLAGS = ("--request-timeout", f"{DEADLINE:g}", "--engine-timeout", f"{ENGINE_TIMEOUT:g}")
SLOWER = "forward passes slower than the deadline"
# Each runs on a new server, since half of them end the process.
FAULTS: dict[str, dict[str, object]] = {
    "every 10th forward pass raises": {"every": 10},
    "memory for 64 tokens": {"memory": 64},
    SLOWER: {"slow": 1.5 * DEADLINE},
    "the engine thread dies": {"fatal": "die"},
    "the device is lost": {"fatal": "lose"},
    "a forward pass hangs": {"fatal": "hang"},
    "the process gets SIGTERM": {},
    "the process gets SIGKILL": {},
}
SIGNALS = {"the process gets SIGTERM": signal.SIGTERM, "the process gets SIGKILL": signal.SIGKILL}
SOME = texts(200, longest=20)


async def run(share: float) -> list[Figure]:
    figures: list[Figure] = []
    replies: list[Reply] = []
    # In the short form, engine.py and drain.py test faults that end the process; batches.py tests failed batches.
    for what, faults in FAULTS.items() if share == 1 else [(SLOWER, FAULTS[SLOWER])]:
        some = await _inject(what, faults, int(REQUESTS * share) // len(FAULTS))
        slowest = max(reply.seconds for reply in some)
        counts = ", ".join(
            f"{_name(status)} {count:,}" for status, count in Counter(r.status for r in some).most_common()
        )
        figures.append(Figure(what, f"{counts}; slowest {slowest:.1f} s"))
        replies += some
    # The short form shares its cores with other tests.
    slack = 1 if share == 1 else 15
    late = sum(reply.seconds > DEADLINE + slack for reply in replies)
    # SIGKILL interrupts responses. Their connections end, so those clients do not hang either.
    return [
        *figures,
        Figure(
            f"requests without a response or a refused connection within {DEADLINE:g} + {slack} s",
            f"{late} of {len(replies):,}",
            "0",
            late == 0,
        ),
    ]


async def _inject(what: str, faults: dict[str, object], requests: int) -> list[Reply]:
    chance = random.Random(0)

    def request() -> bytes:
        inputs = chance.sample(SOME, chance.choice((1, 1, 2, 8)))
        if chance.random() < 0.04:
            inputs[0] = f"{chance.choice((RAISES, NOT_FINITE))} {chance.random()}"
        return ask(inputs)

    with ChaosServer(*FLAGS) as server:
        server.wait_ready()
        wire = Wire(server.port)
        first, rest = requests // 4, requests - requests // 4
        replies = await open_loop(wire, RATE, first / RATE, request)
        load = asyncio.create_task(open_loop(wire, RATE, rest / RATE, request))
        await asyncio.sleep(0.2)
        server.fail(**faults)
        if what in SIGNALS:
            server.process.send_signal(SIGNALS[what])
        replies += await load
        await wire.close()
    return replies


def _name(status: int) -> str:
    return {0: "connection refused", -1: "connection ended"}.get(status, str(status))
