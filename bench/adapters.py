"""What LoRA modules on one base cost, compared with a merged copy: `python -m bench.adapters --help`.

Two encoders of the same random base are loaded in one process: one with a merged adapter, one with the modules. They
take turns, so that other load on the machine affects both alike.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.__main__ import RESULTS
from bench.loading import RANK, write
from bench.origin import origin
from bench.report import adapters
from bench.shapes import SHAPES, Shape
from bench.workloads import workload
from l2v.models import Encoder, Input, load
from l2v.models.batch import batches, token_budget
from l2v.models.runtime import LIBRARIES
from l2v.models.types import Encoding

MERGED = "merged"
# Different files; more modules than these share them, each with weights of its own in memory.
_FILES = 8


def main() -> None:
    options = _options()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return
    results: dict[str, Any] = {
        **origin("bench.adapters", "cuda" if torch.cuda.is_available() else "cpu"),
        "dtype": options.dtype,
        "rank": RANK,
        "shapes": {},
    }
    for name in options.shapes:
        with tempfile.TemporaryDirectory() as made:
            folder = (options.checkpoints or Path(made)) / f"{name.replace(':', '-')}-modules"
            if not folder.is_dir():
                write(_shape(name), folder, [f"module-{index}" for index in range(_FILES)])
            # A new process, which sets what the service sets before torch is imported.
            command = [sys.executable, "-m", "bench.adapters", *sys.argv[1:], "--measure", folder, "--shapes", name]
            measured = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env={**LIBRARIES, **os.environ}
            )
        results["shapes"][name] = json.loads(measured.stdout)
        # After each shape, so that an interrupted run leaves what it has.
        (RESULTS / f"{options.name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(adapters(results))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Load both encoders and run all cases in turn.

    Returns:
        For each case, its tokens, and the seconds on the clock and of the CPU by round; the bytes of base and
        module.
    """
    base, files = str(folder / "base"), [str(folder / f"module-{index}") for index in range(_FILES)]
    merged = load(base, [files[0]], dtype=options.dtype)
    names = {f"module-{index}": files[index % _FILES] for index in range(max(options.modules))}
    encoder = load(base, dtype=options.dtype, lora_modules=names)
    task = workload("mixed", max(*options.modules, int(_shape(options.shapes[0]).texts["mixed"] / options.divisor)))
    texts = [Input(text, task.instruction) for text in task.texts]
    queries = [Input(text) for text in workload("queries", options.queries).texts]
    cases: dict[str, tuple[Encoder, list[list[Encoding]]]] = {}
    for kind, budget, inputs in (("texts", token_budget(merged.device), texts), ("query", 1, queries)):
        cases[f"{kind}, {MERGED}"] = merged, list(batches(merged.tokenize(inputs), budget))
        cases[f"{kind}, no module"] = encoder, list(batches(encoder.tokenize(inputs), budget))
        for count in options.modules if kind == "texts" else [1]:
            cases[f"{kind}, {count} modules".replace("1 modules", "1 module")] = (
                encoder,
                list(batches(_mixed(encoder, inputs, count), budget)),
            )
    found: dict[str, Any] = {"base": merged.weight_bytes, "module": encoder.adapters.nbytes // len(names), "cases": {}}
    for name, (_, packs) in cases.items():
        found["cases"][name] = {"tokens": sum(len(row) for pack in packs for row in pack), "seconds": [], "cpu": []}
    for number in range(options.rounds + 1):
        for name, (each, packs) in cases.items():
            seconds, cpu = _run(each, packs)
            if number:  # the first round warms up
                found["cases"][name]["seconds"].append(seconds)
                found["cases"][name]["cpu"].append(cpu)
    return found


def _shape(name: str) -> Shape:
    """The shape of a name, which may be followed by a colon and a smaller number of layers."""
    name, _, layers = name.partition(":")
    shape = SHAPES[name]
    if not layers:
        return shape
    config = copy.copy(shape.config)
    config.num_hidden_layers = int(layers)
    return replace(shape, config=config)


def _mixed(encoder: Encoder, inputs: Sequence[Input], count: int) -> list[Encoding]:
    """The inputs, each for the next of `count` modules."""
    modules = list(encoder.adapters.modules.values())[:count]
    return [modules[index % count].tokenization([input_])[0] for index, input_ in enumerate(inputs)]


def _run(encoder: Encoder, packs: list[list[Encoding]]) -> tuple[float, float]:
    """The median seconds of a batch if each is a query, else those of all batches; on the clock and of the CPU."""
    spent = []
    for pack in packs:
        started, cpu = time.perf_counter(), time.process_time()
        encoder.forward(pack)
        spent.append((time.perf_counter() - started, time.process_time() - cpu))
    total = statistics.median if all(len(pack) == 1 for pack in packs) else sum
    return total(seconds for seconds, _ in spent), total(cpu for _, cpu in spent)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.adapters", description=__doc__)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument(
        "--shapes",
        type=names,
        default=["135m", "1.3b"],
        help=f"comma-separated, from {', '.join(SHAPES)}; 1.3b:2 has the first 2 layers of 1.3b",
    )
    parser.add_argument("--modules", type=int, nargs="+", default=[1, 8, 64], help="numbers of modules in a batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=32, help="queries per round, each a batch of its own")
    parser.add_argument("--divisor", type=float, default=1, help="divides the number of texts")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32", "int8", "fp8"])
    parser.add_argument("--checkpoints", type=Path, help="folder in which to keep the checkpoints")
    parser.add_argument("--name", default="adapters", help="file name of the results")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
