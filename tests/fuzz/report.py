"""What requests cost, what they may cost, and the table of docs/reliability.md."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

MB = 1 << 20
RESULTS = Path(__file__).with_name("costs.json")
# Rows of the table. All misses are shown, if there are more.
_ROWS = 10


@dataclass(frozen=True)
class Cost:
    """What one request cost.

    Attributes:
        route: its path.
        shape: what its body was like.
        status: of the response.
        body: bytes of the body.
        answer: bytes of the response's body.
        cpu: CPU seconds of the server's process.
        memory: peak bytes of resident memory beyond those of the server before its first request.
        wait: the longest wait, in seconds, of requests for `/health` meanwhile.
        busy: the most CPU seconds that the server's process took during one such wait.
    """

    route: str
    shape: str
    status: int
    body: int
    answer: int
    cpu: float
    memory: int
    wait: float
    busy: float

    @property
    def allowed_cpu(self) -> float:
        """CPU seconds that a rejection may take: 0.05, and 0.05 a megabyte."""
        return 0.05 * (1 + self.body / MB)

    @property
    def allowed_memory(self) -> int:
        """Eight times the body, twice the answer and 64 MB."""
        return 8 * self.body + 2 * self.answer + 64 * MB

    @property
    def shares(self) -> tuple[float, float, float]:
        """CPU time of a rejection, memory and wait, each over what is allowed.

        A wait counts as far as the server was busy meanwhile: if other processes hold the cores, requests wait longer.
        """
        cpu = self.cpu / self.allowed_cpu if self.status >= 400 else 0.0
        return cpu, self.memory / self.allowed_memory, min(self.wait, self.busy) / 0.2


def write(costs: Iterable[Cost], origin: str) -> None:
    """Writes the results file, a line for each request."""
    rows = ",\n".join(json.dumps(asdict(cost)) for cost in costs)
    RESULTS.write_text(f'{{"origin": {json.dumps(origin)}, "costs": [\n{rows}\n]}}\n', encoding="utf-8")


def read() -> tuple[list[Cost], str]:
    """The results file's costs, and its origin."""
    content = json.loads(RESULTS.read_text(encoding="utf-8"))
    return [Cost(**row) for row in content["costs"]], content["origin"]


def misses(costs: Iterable[Cost]) -> list[Cost]:
    """The costs beyond what is allowed."""
    return [cost for cost in costs if max(cost.shares) > 1]


def table(costs: list[Cost], origin: str) -> str:
    """The costs that come closest to what is allowed, or exceed it, and where they were measured."""
    worst = sorted(costs, key=lambda cost: -max(cost.shares))[: max(_ROWS, len(misses(costs)))]
    rows = [
        "| route | body | MB | status | CPU s | memory MB | answer MB | `/health` ms | of these busy | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cost in worst:
        names = ("CPU", "memory", "wait")
        missed = ", ".join(name for name, share in zip(names, cost.shares, strict=True) if share > 1)
        rows.append(
            f"| `{cost.route}` | {cost.shape} | {cost.body / MB:.2g} | {cost.status} | {cost.cpu:.2f} "
            f"| {cost.memory / MB:.0f} | {cost.answer / MB:.2g} | {1000 * cost.wait:.0f} | {1000 * cost.busy:.0f} "
            f"| {f'**missed: {missed}**' if missed else 'met'} |"
        )
    summary = f"Of {len(costs)} requests, {len(costs) - len(misses(costs))} met all three targets."
    return "\n\n".join((summary, "\n".join(rows), origin))
