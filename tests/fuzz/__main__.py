"""`python -m tests.fuzz`: more than 10,000 odd requests to a real server, and the figures as one line of JSON.

Ends with status 1 where an answer breaks a promise, and prints each such request.
"""

import argparse
import json
import sys
import time

from tests.fuzz.campaign import fuzz, schemathesis
from tests.fuzz.serving import server


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="odd requests of our own")
    parser.add_argument("--examples", type=int, default=50, help="of schemathesis, for each operation")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    started = time.monotonic()
    with server() as running:
        figures = [
            fuzz(running, arguments.cases, arguments.seed),
            schemathesis(running, arguments.examples, arguments.seed),
        ]
    problems = [problem for part in figures for problem in part.problems + part.unaccepted]
    summary = {
        "cases": sum(part.cases for part in figures),
        "of our own": figures[0].cases,
        "of schemathesis": figures[1].cases,
        "statuses of our own": dict(sorted(figures[0].statuses.items())),
        "broken promises": len(problems),
        "seconds": round(time.monotonic() - started),
    }
    print(*problems[:50], json.dumps(summary), sep="\n")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
