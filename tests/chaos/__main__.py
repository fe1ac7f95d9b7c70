"""`python -m tests.chaos [promise …]` tests promises at full length and writes the results to docs/reliability.md.

Exits with status 1 if a target is missed.
"""

import argparse
import asyncio
import gc
import sys
import time

from tests.chaos import batches, clients, costs, drain, engine, fairness, figures, hang, overload, sameness, soak

PROMISES = {
    "drain": drain.run,
    "hang": hang.run,
    "overload": overload.run,
    "costs": costs.run,
    "fairness": fairness.run,
    "batches": batches.run,
    "engine": engine.run,
    "clients": clients.run,
    "sameness": sameness.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("promises", nargs="*", choices=[*PROMISES, "soak", []], help="default: all except soak")
    parser.add_argument("--minutes", type=float, default=20.0, help="duration of the soak")
    parser.add_argument(
        "--share", type=float, default=1.0, help="fraction of the full length; results of less than 1 are not written"
    )
    given = parser.parse_args()
    gc.freeze()  # so that full collections don't pause the load for a quarter of a second
    missed = []
    for name in given.promises or PROMISES:
        started = time.monotonic()
        print(f"{name} …", flush=True)
        if name == "soak":
            command, found = f"make soak MINUTES={given.minutes:g}", asyncio.run(soak.run(60 * given.minutes))
        else:
            command, found = "make chaos", asyncio.run(PROMISES[name](given.share))
        seconds = time.monotonic() - started
        print(*(f"  {figure}" for figure in found), f"  {seconds:.0f} s", sep="\n", flush=True)
        missed += [f"{name}: {figure}" for figure in found if not figure.met]
        if given.share == 1.0:
            figures.write(name, command, found, seconds)
    if missed:
        sys.exit("\n".join(["missed targets:", *missed]))


if __name__ == "__main__":
    main()
