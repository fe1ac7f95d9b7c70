"""Writes the tables of README.md and of pages in docs. With --check, fails if one is outdated."""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.report import (
    adapters,
    backlog,
    efficiency,
    forward,
    loading,
    saturation,
    scheduling,
    speedup,
    tokens_per_second,
)
from bench.report import tables as bench_tables
from tests.fuzz import report

ROOT = Path(__file__).parents[1]


def speed_table(runs: list[dict[str, Any]]) -> str:
    """Tokens per second of all engines on mixed texts, one row per shape."""
    tasks = {shape: found["workloads"]["mixed"] for run in runs for shape, found in run["shapes"].items()}
    columns = ("l2v", "l2v over HTTP", "llm2vec", "sentence-transformers", "Infinity over HTTP")
    rows = [f"| shape | {' | '.join(columns)} | l2v, share of the matrix products |", "|---" * (len(columns) + 2) + "|"]
    for shape, task in tasks.items():
        cells = [tokens_per_second(task, name) if name in task["engines"] else "" for name in columns]
        rows.append(f"| {shape.upper()}, {task['texts']} texts | {' | '.join(cells)} | {efficiency(task, 'l2v'):.0%} |")
    return "\n".join(rows)


def summary(runs: list[dict[str, Any]]) -> str:
    """How many times as fast as each other library l2v is, one row per shape and library, and two more figures."""
    shapes = {shape: found["workloads"] for run in runs for shape, found in run["shapes"].items()}
    kinds = list(next(iter(shapes.values())))
    rows = [f"| parameters | compared with | {' | '.join(kinds)} |", "|---" * (len(kinds) + 2) + "|"]
    for shape, tasks in shapes.items():
        for name in tasks[kinds[0]]["engines"]:
            if not name.startswith("l2v"):
                ratios = [f"{speedup(tasks[kind], name):.1f}×" for kind in kinds]
                rows.append(f"| {shape.upper()} | {name} | {' | '.join(ratios)} |")
    largest = [found for shape, tasks in shapes.items() if shape == "1.3b" for found in tasks.values()]
    shares = [100 * efficiency(found, "l2v") for found in largest]
    int8 = [1 / (speedup(found, "l2v int8") or 1) for found in largest]
    cosine = min(found["engines"]["l2v int8"]["least_cosine"] for found in largest)
    sentences = (
        f"With 1.3B parameters, l2v reaches {min(shares):.0f} to {max(shares):.0f} % of the speed of bare matrix "
        f"products of the same sizes. In int8 it is {min(int8):.1f} to {max(int8):.1f} × as fast as in bfloat16, "
        f"and the lowest cosine between the two vectors of a text is {cosine:.3f}."
    )
    return "\n".join([*rows, "", sentences])


def amx(runs: Sequence[dict[str, Any]]) -> str:
    """The sentences about runs on a CPU with AMX."""
    sentences = ["On a CPU with AMX, matrix products are several times as fast, and l2v is ahead by less, or behind."]
    for shape, found in (item for run in runs for item in run["shapes"].items()):
        tasks = found["workloads"]
        names = [
            name
            for name in ("vLLM", "sentence-transformers", "llama.cpp")
            if name in next(iter(tasks.values()))["engines"]
        ]
        faster = [
            f"{_and(f'{speedup(task, name):.2f}' for task in tasks.values())} × as fast as {name}" for name in names
        ]
        sentences.append(f"With {shape.upper()} parameters ({_and(tasks)}), l2v is {_and(faster)}.")
    return " ".join(sentences)


def _and(parts: Iterable[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def scheduling_tables(results: dict[str, Any]) -> str:
    """The comparison of scheduling policies, simulated and on servers."""
    costs = ", ".join(f"{tokens:,} in {1000 * seconds:.0f} ms" for tokens, seconds in results["costs"])
    parts = [
        f"Simulated (`python -m bench.scheduling`), with forward passes of so many tokens as measured: {costs}.",
        scheduling(results["simulated"]),
        f"On real servers, {results['origin']}:",
        scheduling(results["served"]),
    ]
    return "\n\n".join(parts)


def gpu_tables(results: Path) -> str:
    """What `make bench-gpu` has measured so far."""
    found = [
        table(json.loads(file.read_text(encoding="utf-8")))
        for pattern, table in (("cuda-*.json", bench_tables), ("forward-*.json", forward))
        for file in sorted(results.glob(pattern))
    ]
    return "\n\n".join(found) or "Neither has been run on a GPU yet."


def pages() -> dict[Path, dict[str, str]]:
    """The tables of each page, by name."""
    results = ROOT / "bench/results"
    names = ("cpu.json", "cpu-1.3b.json", "cpu-amx.json", "cpu-amx-1.3b.json")
    measured = [json.loads((results / name).read_text(encoding="utf-8")) for name in names]
    runs, with_amx = measured[:2], measured[2:]
    start, queue, http = (
        json.loads((results / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("loading", "backlog", "saturation")
    )
    modules = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(results.glob("adapters*.json"))]
    policies = json.loads((results / "scheduling.json").read_text(encoding="utf-8"))
    return {
        ROOT / "README.md": {"speed": speed_table(runs), "amx": amx(with_amx)},
        ROOT / "docs/performance.md": {
            "summary": f"{summary(runs)}\n\n{amx(with_amx)}",
            "bench": "\n\n".join(map(bench_tables, runs)),
            "bench-amx": "\n\n".join(map(bench_tables, with_amx)),
            "gpu": gpu_tables(results),
            "queue": f"{backlog(queue)}\n\n{saturation(http)}",
            "loading": loading(start),
            "adapters": "\n\n".join(map(adapters, modules)),
            "scheduling": scheduling_tables(policies),
        },
        ROOT / "docs/reliability.md": {"costs": report.table(*report.read())},
    }


def fill(page: Path, tables: dict[str, str]) -> str:
    """Replace the tables in the page's text, each between its two comments."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"{page.name} has no comments around the table {name}")
        text = marked.sub(lambda match, table=table: match[1] + table + match[2], text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    for page, tables in pages().items():
        filled = fill(page, tables)
        if not check:
            page.write_text(filled, encoding="utf-8")
        elif filled != page.read_text(encoding="utf-8"):
            sys.exit(f"the tables of {page.name} are outdated: run `make docs`")


if __name__ == "__main__":
    main()
