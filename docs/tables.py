"""Writes the generated tables of README.md and docs/PERFORMANCE.md. With --check, fails if they are outdated.

Settings and stacks come from the code, benchmark results from bench/results.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from bench.report import efficiency, tokens_per_second
from bench.report import tables as bench_tables
from l2v.app.settings import Settings
from l2v.models.published import STACKS
from l2v.models.settings import PREFIX

ROOT = Path(__file__).parents[1]


def settings_table() -> str:
    """The settings by variable and flag."""
    rows = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, (), "") else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | `--{name.replace('_', '-')}` | {default} | {field.description} |")
    return "\n".join(rows)


def stacks_table() -> str:
    """The published models by short name, the stages of an LLM2Vec model in one row."""
    rows = ["| `--model` | base or model | weights in bfloat16 | licence |", "|---|---|---|---|"]
    by_base: dict[str, list[str]] = {}
    for name, stack in STACKS.items():
        by_base.setdefault(stack.base, []).append(name)
    for base, names in list(by_base.items())[1:]:  # without the built-in model
        stack = STACKS[names[0]]
        shown = " · ".join(f"`{name}`" for name in reversed(names))
        accept = ", to accept on the Hub" if stack.gated else ""
        rows.append(f"| {shown} | {base} | {stack.memory:.1f} GB | {stack.licence}{accept} |")
    return "\n".join(rows)


def speed_table(runs: list[dict[str, Any]]) -> str:
    """Tokens per second of all engines on mixed texts, one row per shape."""
    tasks = {shape: found["workloads"]["mixed"] for run in runs for shape, found in run["shapes"].items()}
    columns = ("l2v", "l2v over HTTP", "llm2vec", "sentence-transformers", "Infinity over HTTP")
    rows = [f"| shape | {' | '.join(columns)} | l2v, share of the matrix products |", "|---" * (len(columns) + 2) + "|"]
    for shape, task in tasks.items():
        cells = [tokens_per_second(task, name) if name in task["engines"] else "" for name in columns]
        rows.append(f"| {shape.upper()}, {task['texts']} texts | {' | '.join(cells)} | {efficiency(task, 'l2v'):.0%} |")
    return "\n".join(rows)


def pages() -> dict[Path, dict[str, str]]:
    """The tables of each page, by name."""
    results = ROOT / "bench/results"
    runs = [json.loads((results / name).read_text(encoding="utf-8")) for name in ("cpu.json", "cpu-1.3b.json")]
    return {
        ROOT / "README.md": {"settings": settings_table(), "stacks": stacks_table(), "speed": speed_table(runs)},
        ROOT / "docs/PERFORMANCE.md": {"bench": "\n\n".join(map(bench_tables, runs))},
    }


def fill(page: Path, tables: dict[str, str]) -> str:
    """Replace the tables between their marks in the page's text."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"{page.name} has no marks for the table {name}")
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
