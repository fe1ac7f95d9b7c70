"""The cost of HTTP: throughput of a saturated server, compared with throughput in process.

    python -m bench.saturation

`python -m bench` also runs slow engines, so it uses fewer texts, and its last batches are not full.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch

from bench.engines import LibraryEngine, ServerEngine
from bench.shapes import SHAPES
from bench.workloads import workload

_TEXTS, _ROUNDS = 768, 3


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task, ratios = workload("mixed", _TEXTS), []
    with tempfile.TemporaryDirectory() as checkpoints:
        folder = SHAPES["135m"].write(Path(checkpoints))
        with (
            LibraryEngine("l2v", "l2v", Path(sys.executable), folder, "bfloat16", device) as library,
            ServerEngine.l2v("l2v over HTTP", folder, "bfloat16", device) as server,
        ):
            for _ in range(_ROUNDS):
                in_process, over_http = library.run(task).seconds, server.run(task).seconds
                ratios.append(in_process / over_http)
                print(f"in process {in_process:.1f} s, over HTTP {over_http:.1f} s: {ratios[-1]:.3f} of the throughput")
    print(f"median of {_ROUNDS} rounds: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
