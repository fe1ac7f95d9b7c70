"""A failed batch fails only the inputs at fault: forward passes that raise, return NaN or run out of memory."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.chaos.faults import NOT_FINITE, RAISES
from tests.chaos.figures import Figure
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Reply, Wire

REQUESTS, CLIENTS = 2000, 16
SOME = texts(200, longest=20)
EVERY, MEMORY = 100, 512


class Traffic:
    """Requests of several inputs, some with a faulty input.

    Attributes:
        sent: number of requests.
        wrong: number of valid requests without a complete, correct response.
        faulty: number of requests with a faulty input.
        named: number of faulty requests whose response was a 500 that names the input.
    """

    def __init__(self, wire: Wire, references: ReferenceVectors) -> None:
        self._wire, self._references, self._chance = wire, references, random.Random(0)
        self.sent = self.wrong = self.faulty = self.named = 0

    async def run(self, requests: int, share: float = 0.0, kind: str = RAISES) -> None:
        left = iter(range(requests))

        async def client() -> None:
            for number in left:
                inputs = self._chance.sample(SOME, self._chance.randint(1, 16))
                place = self._chance.randrange(len(inputs))
                is_faulty = self._chance.random() < share
                if is_faulty:
                    inputs[place] = f"{kind} {number}"
                self._count(inputs, f"inputs[{place}].text" if is_faulty else "", await self._wire.send(ask(inputs)))

        await asyncio.gather(*(client() for _ in range(CLIENTS)))

    def _count(self, inputs: list[str], param: str, reply: Reply) -> None:
        self.sent += 1
        if param:
            self.faulty += 1
            self.named += reply.status == 500 and reply.content["error"]["param"] == param
        else:
            self.wrong += not self._references.match(inputs, reply)

    def figures(self, what: str) -> list[Figure]:
        valid = self.sent - self.faulty
        found = [
            Figure(
                f"{what}: correct responses to valid requests",
                f"{valid - self.wrong:,} of {valid:,}",
                "all",
                self.wrong == 0 < valid,
            )
        ]
        if self.faulty:
            found.append(
                Figure(
                    f"{what}: faulty requests with a 500 that names the input",
                    f"{self.named:,} of {self.faulty:,}",
                    "all",
                    self.named == self.faulty,
                )
            )
        return found


async def run(share: float) -> list[Figure]:
    requests, figures = max(100, int(REQUESTS * share)), []
    with ChaosServer("--max-batch-tokens", "2048") as server:
        server.wait_ready()
        wire = Wire(server.port)
        references = await ReferenceVectors.compute(wire, SOME)

        async def phase(what: str, run: Callable[[Traffic], Awaitable[None]]) -> None:
            traffic = Traffic(wire, references)
            await run(traffic)
            figures.extend(traffic.figures(what))

        every = max(10, int(EVERY * share))
        server.fail(every=every)
        await phase(f"every {every}th pass raises", lambda traffic: traffic.run(requests))
        failed = server.metric("l2v_batches_total", outcome="error")
        figures.append(Figure("failed forward passes, retried in halves", f"{failed:.0f}", "> 0", failed > 0))
        server.fail()
        await phase("1 % of requests raise", lambda traffic: traffic.run(requests, 0.01))
        await phase("1 % of requests produce NaN", lambda traffic: traffic.run(requests, 0.01, NOT_FINITE))
        await phase("half of the requests raise", lambda traffic: traffic.run(requests // 4, 0.5))
        await phase("half of the requests produce NaN", lambda traffic: traffic.run(requests // 4, 0.5, NOT_FINITE))
        full = server.metric("l2v_batch_budget_tokens")
        server.fail(memory=MEMORY)
        await phase(f"memory for {MEMORY} tokens, budget of {full:.0f}", lambda traffic: traffic.run(requests // 2))
        lowered, times = (
            server.metric("l2v_batch_budget_tokens"),
            server.metric("l2v_batches_total", outcome="out_of_memory"),
        )
        figures.append(
            Figure(
                "token budget before and after", f"{full:.0f} → {lowered:.0f} tokens", f"≤ {MEMORY}", lowered <= MEMORY
            )
        )
        figures.append(Figure("forward passes out of memory", f"{times:.0f}", "> 0", times > 0))
        healthy = server.client.get("/health").status_code
        figures.append(Figure("`/health` afterwards", f"{healthy}", "200", healthy == 200))
        await wire.close()
    return figures
