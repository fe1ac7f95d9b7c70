"""The tables of docs/sizing.md, from bench/results."""

import json
import statistics
from pathlib import Path
from typing import Any

from bench.report import tokens_per_second

RESULTS = Path(__file__).parents[1] / "bench" / "results"
_RUNS = ("cpu.json", "cpu-1.3b.json")
_DTYPES = {"l2v": "bfloat16", "l2v int8": "int8"}
# Too few requests for a 99th percentile.
_MIN_REQUESTS = 100


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _table(header: str, rows: list[str]) -> str:
    return "\n".join([header, "|---" * (header.count("|") - 1) + "|", *rows])


def throughput_table() -> str:
    """Memory and tokens per second on mixed texts, by shape and dtype, and how they were measured."""
    rows, commands = [], []
    for run in map(_read, _RUNS):
        commands.append(f"On {run['machine']}, {run['date']}: `{run['command']}`.")
        for shape, found in run["shapes"].items():
            task = found["workloads"]["mixed"]
            for engine, dtype in _DTYPES.items():
                one = task["engines"][engine]
                texts = f"{task['texts'] / statistics.median(one['seconds']):.1f}"
                cells = [shape.upper(), dtype, f"{one['memory'] / 1e9:.1f} GB", tokens_per_second(task, engine), texts]
                rows.append(f"| {' | '.join(cells)} |")
    table = _table("| parameters | dtype | memory of the process, at most | tokens/s | texts/s |", rows)
    return "\n\n".join([table, *commands])


def latency_table() -> str:
    """Times of requests with one query each, by shape and number of clients."""
    rows = []
    for run in map(_read, _RUNS):
        for shape, found in run["shapes"].items():
            for clients, one in found["latency"]["l2v over HTTP"].items():
                p99 = f"{1000 * one['p99']:.0f} ms" if one["requests"] >= _MIN_REQUESTS else ""
                rate = f"{one['requests_per_second']:.1f}"
                rows.append(f"| {shape.upper()} | {clients} | {1000 * one['p50']:.0f} ms | {p99} | {rate} |")
    return _table("| parameters | clients | median | 99th percentile | requests/s |", rows)


def batches_table() -> str:
    """The time of a forward pass of the built-in model, by its tokens."""
    costs = _read("scheduling.json")["costs"]
    rows = [f"| {tokens:,} | {1000 * seconds:.0f} ms | {tokens / seconds:,.0f} |" for tokens, seconds in costs]
    return _table("| tokens in the batch | forward pass | tokens/s |", rows)
