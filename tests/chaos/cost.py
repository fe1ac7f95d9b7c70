"""No request takes more than its share: large bodies of every kind to every route, beside requests for `/health`."""

import asyncio

from tests.chaos.figures import Figure
from tests.fuzz import costs

# A body that holds just fewer values than a body may, and a large one.
SIZES = (int(1.9 * costs.MB), int(14.5 * costs.MB))
# The short form: one of each kind of parser's work.
FEW = ("texts of escaped CJK", "rows of ids, the last one negative", "unknown fields", "lone surrogates")


async def run(share: float) -> list[Figure]:
    sizes, shapes = (SIZES, tuple(costs.SHAPES)) if share == 1 else (SIZES[:1], FEW)
    found = await asyncio.to_thread(costs.measure, sizes, shapes)
    if share == 1:
        costs.write(found)
    return [*figures(found), *(Figure(*_outline(cost)) for cost in costs.worst(found)[:10])]


def _outline(cost: costs.Cost) -> tuple[str, str]:
    numbers = (f"{cost.cpu:.2f} s of CPU", f"{cost.memory / costs.MB:.0f} MB", f"{1000 * cost.stall:.0f} ms waited")
    return f"among the worst ten: {cost.shape}, `{cost.route}`, {cost.body / costs.MB:.1f} MB", ", ".join(numbers)


def figures(found: list[costs.Cost]) -> list[Figure]:
    """The worst of each kind."""
    refusals = [cost for cost in found if cost.status >= 400]
    cpu, memory, stall = (
        max(refusals, key=lambda cost: cost.cpu_share),
        max(found, key=lambda cost: cost.memory_share),
        max(found, key=lambda cost: cost.stall),
    )
    failed = sum(cost.status >= 500 or cost.status == 424 for cost in found)
    return [
        Figure("requests, and refusals among them", f"{len(found)}, {len(refusals)}"),
        Figure("responses with a fault of the server", f"{failed}", "0", failed == 0),
        Figure(
            f"most CPU time of a refusal ({cpu.shape}, `{cpu.route}`)",
            f"{cpu.cpu:.2f} s for {cpu.body / costs.MB:.1f} MB",
            "≤ 0.05 s a MB, and 0.05 s",
            cpu.cpu_share <= 1,
        ),
        Figure(
            f"most memory ({memory.shape}, `{memory.route}`)",
            f"{memory.memory / costs.MB:.0f} MB for {memory.body / costs.MB:.1f} MB, "
            f"answered with {memory.answer / costs.MB:.1f} MB",
            "≤ 8 × body + 2 × answer + 64 MB",
            memory.memory_share <= 1,
        ),
        Figure(
            f"longest wait for `/health` ({stall.shape}, `{stall.route}`)",
            f"{1000 * stall.stall:.0f} ms",
            "≤ 200 ms",
            stall.stall <= 0.2,
            timing=True,
        ),
    ]
