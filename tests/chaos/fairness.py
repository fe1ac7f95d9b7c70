"""Bulk requests do not starve small ones: one-input queries while four clients send 2,000 inputs at a time."""

import asyncio
import itertools

from tests.chaos.figures import Figure
from tests.chaos.load import closed_loop, open_loop, percentile
from tests.chaos.server import ChaosServer
from tests.chaos.texts import ReferenceVectors, ask, texts
from tests.chaos.wire import Wire

SECONDS, CLIENTS, RATE = 60.0, 4, 5.0
BULK = texts(2000)
QUERIES = texts(50, longest=10, seed=1)


async def run(share: float) -> list[Figure]:
    seconds, bulk_inputs = max(5.0, SECONDS * share), BULK[: max(400, int(len(BULK) * share))]
    with ChaosServer() as server:
        server.wait_ready()
        wire, other = Wire(server.port), Wire(server.port)
        references = await ReferenceVectors.compute(wire, QUERIES)
        bulk_body, queries = ask(bulk_inputs), itertools.cycle(QUERIES)
        sent: list[str] = []

        def query() -> bytes:
            sent.append(next(queries))
            return ask([sent[-1]])

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
    correct = sum(references.match([text], reply) for text, reply in zip(sent, replies, strict=True))
    succeeded = sum(reply.status == 200 for reply in bulk_replies)
    return [
        Figure(
            "successful bulk requests", f"{succeeded} of {len(bulk_replies)}", "all", succeeded == len(bulk_replies) > 0
        ),
        Figure("queries with the correct vector", f"{correct} of {len(replies)}", "all", correct == len(replies)),
        Figure("duration of a full batch, at the mean rate", f"{batch:.2f} s of {budget:,.0f} tokens"),
        Figure(
            "latency of queries, p50 and p99",
            f"{percentile([reply.seconds for reply in replies], 0.5):.2f} s, {slowest:.2f} s",
            f"p99 ≤ 3 batches, {3 * batch:.2f} s",
            slowest <= 3 * batch,
            timing=True,
        ),
    ]
