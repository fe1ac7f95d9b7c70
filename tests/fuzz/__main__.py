"""`python -m tests.fuzz`: sends more than 10,000 malformed requests to a real server and prints a summary as JSON.

If a response breaks the contract, prints the request and exits with status 1. With `--cost`, sends large bodies
instead, and prints what each costs.
"""

import argparse
import json
import sys
import time

from tests.fuzz import costs
from tests.fuzz.campaign import fuzz, schemathesis
from tests.fuzz.serving import server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="number of requests of our own fuzzer")
    parser.add_argument("--examples", type=int, default=50, help="examples of schemathesis per operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--cost", action="store_true", help="report CPU time, memory and stalls of large bodies instead"
    )
    parser.add_argument("--megabytes", type=float, default=14.5, help="the size of these bodies")
    arguments = parser.parse_args()
    if arguments.cost:
        print(costs.table(costs.worst(costs.measure((int(arguments.megabytes * costs.MB),), tuple(costs.SHAPES)))))
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


if __name__ == "__main__":
    main()
