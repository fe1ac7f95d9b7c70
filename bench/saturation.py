"""The cost of HTTP: throughput of a saturated server, compared with throughput in process.

    python -m bench.saturation

`python -m bench` also runs slow engines, so it uses fewer texts, and its last batches are not full. Results go to
bench/results/saturation.json, from which `make docs` writes a sentence.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from bench import report
from bench.__main__ import RESULTS
from bench.engines import LibraryEngine, ServerEngine
from bench.origin import origin
from bench.shapes import SHAPES
from bench.workloads import workload

_TEXTS, _ROUNDS = 768, 3


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    task = workload("mixed", _TEXTS)
    with tempfile.TemporaryDirectory() as checkpoints:
        folder = SHAPES["135m"].write(Path(checkpoints))
        with (
            LibraryEngine("l2v", "l2v", Path(sys.executable), folder, "bfloat16", device) as library,
            ServerEngine.l2v("l2v over HTTP", folder, "bfloat16", device) as server,
        ):
            seconds = [(library.run(task).seconds, server.run(task).seconds) for _ in range(_ROUNDS)]
    results = {**origin("bench.saturation", device), "seconds": seconds}
    (RESULTS / "saturation.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(report.saturation(results))


if __name__ == "__main__":
    main()
