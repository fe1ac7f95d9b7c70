"""Requests cost no more than they may: each shape of the cost fuzzer on one of the routes, and small costly bodies."""

import asyncio
from itertools import chain, islice

from tests.chaos.figures import Figure
from tests.fuzz import costs, shapes
from tests.fuzz.report import MB, Cost
from tests.serving import ServerProcess

# The first of the small bodies are rejected. Their costs are those that a change could raise most.
_REJECTED = 6


async def run(share: float) -> list[Figure]:
    found = await asyncio.to_thread(_measure, max(MB, int(14 * MB * share)), share == 1)
    # On a busy machine, the same work takes more CPU time.
    slow = [cost for cost in found if cost.shares[0] > (1 if share == 1 else 2)]
    large = [cost for cost in found if cost.shares[1] > 1]
    slowest = max(found, key=lambda cost: cost.wait)
    return [
        Figure("requests, of them rejected", f"{len(found)}, {sum(cost.status >= 400 for cost in found)}"),
        Figure("rejections beyond 50 ms of CPU time and 50 ms for each MB", _names(slow), "none", not slow),
        Figure("requests beyond their memory", _names(large), "none", not large),
        Figure(
            "longest wait for `/health`",
            f"{1000 * slowest.wait:.0f} ms, during {slowest.shape} to `{slowest.route}`",
            "≤ 200 ms",
            slowest.wait <= 0.2,
            timing=True,
        ),
    ]


def _measure(size: int, answers: bool) -> list[Cost]:
    """Measures bodies that are rejected and large ones, and, on a new server, those with large answers."""
    large = (
        next(islice(shapes.requests(size, shape), number % len(shapes.ROUTES), None))
        for number, shape in enumerate(shapes.SHAPES)
    )
    found: list[Cost] = []
    for requests in (chain(shapes.SPECIAL[:_REJECTED], large), shapes.SPECIAL[_REJECTED:])[: 1 + answers]:
        with ServerProcess("--log-level", "warning") as server:
            costs.warm_up(server)
            found += costs.measure(server, requests)
    return found


def _names(found: list[Cost]) -> str:
    return ", ".join(f"{cost.shape} to `{cost.route}` ({max(cost.shares[:2]):.1f} ×)" for cost in found) or "none"
