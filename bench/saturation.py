"""What HTTP costs where it matters: throughput over HTTP against in process, the server saturated throughout.

    python -m bench.saturation

`python -m bench` compares with slower engines and so takes few texts, of which the last leave batches half empty.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch

from bench.engines import InProcess, Server
from bench.shapes import SHAPES
from bench.workloads import workload

_TEXTS, _ROUNDS = 768, 3


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task, ratios = workload("mixed", _TEXTS), []
    with tempfile.TemporaryDirectory() as checkpoints:
        folder = SHAPES["135m"].write(Path(checkpoints))
        with (
            InProcess("l2v", "l2v", Path(sys.executable), folder, "bfloat16", device) as library,
            Server.l2v("l2v over HTTP", folder, "bfloat16", device) as server,
        ):
            for _ in range(_ROUNDS):
                inside, outside = library.run(task).seconds, server.run(task).seconds
                ratios.append(inside / outside)
                print(f"in process {inside:.1f} s, over HTTP {outside:.1f} s: {ratios[-1]:.3f} of the throughput")
    print(f"median of {_ROUNDS} rounds: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
