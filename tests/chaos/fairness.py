"""Small requests are not starved: one-input queries beside four clients that send 2,000 inputs at a time."""

import asyncio
import itertools

from tests.chaos.figures import Figure
from tests.chaos.load import closed_loop, open_loop, percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import Known, ask, texts
from tests.chaos.wire import Wire

SECONDS, CLIENTS, RATE = 60.0, 4, 5.0
BULK = texts(2000)
QUERIES = texts(50, longest=10, seed=1)


async def run(share: float) -> list[Figure]:
    seconds, bulk_inputs = max(5.0, SECONDS * share), BULK[: max(400, int(len(BULK) * share))]
    with ChaosServer() as server:
        server.wait_ready()
        wire, other = Wire(server.port), Wire(server.port)
        known = await Known.learn(wire, QUERIES)
        bulk_body, queries = ask(bulk_inputs), itertools.cycle(QUERIES)
        asked: list[str] = []

        def query() -> bytes:
            asked.append(next(queries))
            return ask([asked[-1]])

        bulk = asyncio.create_task(closed_loop(other, CLIENTS, seconds + 3, lambda: bulk_body))
        await asyncio.sleep(2)
        names = ("l2v_batch_seconds_sum", "l2v_batch_tokens_sum")
        before = [server.metric(name) for name in names]
        replies = await open_loop(wire, RATE, seconds, query)
        spent, tokens = (server.metric(name) - old for name, old in zip(names, before, strict=True))
        bulk_replies = await bulk
        budget = server.metric("l2v_batch_budget_tokens")
        await wire.close()
        await other.close()
    batch, slowest = budget * spent / tokens, percentile([reply.seconds for reply in replies], 0.99)
    right = sum(known.right([text], reply) for text, reply in zip(asked, replies, strict=True))
    whole = sum(reply.status == 200 for reply in bulk_replies)
    return [
        Figure("bulk requests answered", f"{whole} of {len(bulk_replies)}", "all", whole == len(bulk_replies) > 0),
        Figure("queries answered, with the right vector", f"{right} of {len(replies)}", "all", right == len(replies)),
        Figure("one full batch, at the mean rate of the run", f"{batch:.2f} s of {budget:,.0f} tokens"),
        Figure(
            "queries, p50 and p99",
            f"{percentile([reply.seconds for reply in replies], 0.5):.2f} s, {slowest:.2f} s",
            f"p99 ≤ 3 batches, {3 * batch:.2f} s",
            slowest <= 3 * batch,
            timing=True,
        ),
    ]
