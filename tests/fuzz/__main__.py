"""`python -m tests.fuzz`: sends more than 10,000 malformed requests to a real server and prints a summary as JSON.

If a response breaks the contract, prints the request and exits with status 1. With `--cost`, sends large bodies
instead, and writes what each costs to tests/fuzz/costs.json, from which `make docs` writes a table.
"""

import argparse
import json
import os
import sys
import time
from itertools import chain

from tests.chaos.figures import origin
from tests.fuzz import costs, report, shapes
from tests.fuzz.campaign import fuzz, schemathesis
from tests.fuzz.serving import server
from tests.serving import ServerProcess

# Bytes of a large body, just below `max_body_bytes`.
_SIZE = 15_204_352
# Bytes that a server may keep of earlier requests.
_KEPT = 24 << 20


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of requests of our own fuzzer")
    parser.add_argument("--examples", type=int, default=50, help="examples of schemathesis per operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--cost", action="store_true", help="report CPU time, memory and stalls of large bodies instead"
    )
    parser.add_argument("--megabytes", type=float, default=_SIZE / report.MB, help="size of these bodies")
    parser.add_argument("--shapes", default="", help="only bodies with these words; their results are not written")
    arguments = parser.parse_args()
    if arguments.cost:
        _cost(int(arguments.megabytes * report.MB), arguments.shapes)
        return
    started = time.monotonic()
    with server() as running:
        figures = [
            fuzz(running, arguments.cases, arguments.seed),
            schemathesis(running, arguments.examples, arguments.seed),
        ]
    problems = [problem for part in figures for problem in part.problems + part.unaccepted]
    summary = {
        "cases": sum(part.cases for part in figures),
        "own cases": figures[0].cases,
        "schemathesis cases": figures[1].cases,
        "own statuses": dict(sorted(figures[0].statuses.items())),
        "problems": len(problems),
        "seconds": round(time.monotonic() - started),
    }
    print(*problems[:50], json.dumps(summary), sep="\n")
    sys.exit(bool(problems))


def _cost(size: int, only: str) -> None:
    """Measures all requests, on a new server once one keeps much of the memory that requests took."""
    started = time.monotonic()
    special = [request for request in shapes.SPECIAL if only in request.shape]
    large = (list(shapes.requests(size, shape)) for shape in shapes.SHAPES if only in shape)
    found, left = [], filter(None, chain([special], large))
    while requests := next(left, None):
        with ServerProcess("--log-level", "warning") as running:
            costs.warm_up(running)
            fresh = costs.resident_bytes(running)
            while requests:
                for cost in costs.measure(running, requests):
                    found.append(cost)
                    print(cost, *(f"{share:.2f}" for share in cost.shares), flush=True)
                kept = costs.resident_bytes(running) - fresh
                requests = next(left, None) if kept < _KEPT else None
    command = "python -m tests.fuzz --cost" + ("" if size == _SIZE else f" --megabytes {size / report.MB:g}")
    load = f"a load average of {os.getloadavg()[2]:.0f}"
    made = f"{origin(command, time.monotonic() - started)}, {load}."
    print(report.table(found, made))
    if not only:
        report.write(found, made)


if __name__ == "__main__":
    main()
