"""A bad batch hurts only itself: forward passes that raise, give NaN or run out of memory."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.chaos.faults import NOT_FINITE, RAISES
from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import Known, ask, texts
from tests.chaos.wire import Reply, Wire

REQUESTS, CLIENTS = 2000, 16
SOME = texts(200, longest=20)
EVERY, MEMORY = 100, 512


class Traffic:
    """Requests of several inputs, a share of them with a guilty one.

    Attributes:
        sent: how many.
        wrong: of the innocent, those without a whole and right answer.
        guilty: how many held a guilty input.
        told: of these, those answered 500 with the input's name.
    """

    def __init__(self, wire: Wire, known: Known) -> None:
        self._wire, self._known, self._chance = wire, known, random.Random(0)
        self.sent = self.wrong = self.guilty = self.told = 0

    async def run(self, requests: int, guilty: float = 0.0, kind: str = RAISES) -> None:
        left = iter(range(requests))

        async def client() -> None:
            for number in left:
                inputs = self._chance.sample(SOME, self._chance.randint(1, 16))
                place = self._chance.randrange(len(inputs))
                is_guilty = self._chance.random() < guilty
                if is_guilty:
                    inputs[place] = f"{kind} {number}"
                self._count(inputs, f"inputs[{place}].text" if is_guilty else "", await self._wire.send(ask(inputs)))

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    def _count(self, inputs: list[str], param: str, reply: Reply) -> None:
        self.sent += 1
        if param:
            self.guilty += 1
            self.told += reply.status == 500 and reply.content["error"]["param"] == param
        else:
            self.wrong += not self._known.right(inputs, reply)

    def figures(self, what: str) -> list[Figure]:
        innocent = self.sent - self.guilty
        found = [
            Figure(
                f"{what}: innocent requests unharmed",
                f"{innocent - self.wrong:,} of {innocent:,}",
                "all",
                self.wrong == 0 < innocent,
            )
        ]
        if self.guilty:
            found.append(
                Figure(
                    f"{what}: guilty ones answered 500, naming their input",
                    f"{self.told:,} of {self.guilty:,}",
                    "all",
                    self.told == self.guilty,
                )
            )
        return found


async def run(share: float) -> list[Figure]:
    requests, figures = max(100, int(REQUESTS * share)), []
    with ChaosServer("--max-batch-tokens", "2048") as server:
        server.wait_ready()
        wire = Wire(server.port)
        known = await Known.learn(wire, SOME)

        async def phase(what: str, run: Callable[[Traffic], Awaitable[None]]) -> None:
            traffic = Traffic(wire, known)
            await run(traffic)
            figures.extend(traffic.figures(what))

        every = max(10, int(EVERY * share))
        server.fail(every=every)
        await phase(f"every {every}th pass raises", lambda traffic: traffic.run(requests))
        failed = server.metric("l2v_batches_total", outcome="error")
        figures.append(
            Figure("passes that failed so, and were run again in halves", f"{failed:.0f}", "some", failed > 0)
        )
        server.fail()
        await phase("1 % of requests raise", lambda traffic: traffic.run(requests, 0.01))
        await phase("1 % of requests give NaN", lambda traffic: traffic.run(requests, 0.01, NOT_FINITE))
        await phase("bursts, every second request raises", lambda traffic: traffic.run(requests // 4, 0.5))
        await phase("bursts, every second gives NaN", lambda traffic: traffic.run(requests // 4, 0.5, NOT_FINITE))
        full = server.metric("l2v_batch_budget_tokens")
        server.fail(memory=MEMORY)
        await phase(
            f"{MEMORY} tokens fit into memory, a budget of {full:.0f}", lambda traffic: traffic.run(requests // 2)
        )
        lowered, times = (
            server.metric("l2v_batch_budget_tokens"),
            server.metric("l2v_batches_total", outcome="out_of_memory"),
        )
        figures.append(
            Figure("budget of a batch, lowered", f"{full:.0f} → {lowered:.0f} tokens", f"≤ {MEMORY}", lowered <= MEMORY)
        )
        figures.append(Figure("passes out of memory", f"{times:.0f}", "counted", times > 0))
        healthy = server.client.get("/health").status_code
        figures.append(Figure("`/health` afterwards", f"{healthy}", "200", healthy == 200))
        await wire.close()
    return figures
