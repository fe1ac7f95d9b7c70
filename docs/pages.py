"""Writes the generated parts of the pages in docs/: `python -m docs.pages`. With --check, reports outdated pages.

Two comments enclose each part: `<!-- settings -->` … `<!-- /settings -->`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path

from bench import ceiling_report
from docs import models, openapi, sizing, snippets
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.models.settings import PREFIX

DOCS = Path(__file__).parent


def settings_table() -> str:
    """The settings by variable and flag."""
    rows = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, (), "", {}) else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | `--{name.replace('_', '-')}` | {default} | {field.description} |")
    return "\n".join(rows)


def workers_table() -> str:
    """How many front ends a rate of requests takes."""
    results = DOCS.parent / "bench/results/ceiling.json"
    return ceiling_report.needed(json.loads(results.read_text(encoding="utf-8")))


def metrics_table() -> str:
    """The service's own metrics."""
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    for metric in Metrics().registry.collect():
        if metric.name.startswith("l2v_"):
            name = f"{metric.name}_total" if metric.type == "counter" else metric.name
            rows.append(f"| `{name}` | {metric.type} | {metric.documentation} |")
    return "\n".join(rows)


def python(code: Callable[[], str], info: str = 'with="texts"') -> Callable[[], str]:
    """Turn code into a block of Python; `info` follows the language, with options for tests/docs/blocks.py."""

    @wraps(code)
    def block() -> str:
        return f"```python {info}\n{code()}\n```"

    return block


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "llm2vec models": models.llm2vec_table,
    "other models": models.other_table,
    "metrics": metrics_table,
    "workers": workers_table,
    "throughput": sizing.throughput_table,
    "latency": sizing.latency_table,
    "batches": sizing.batches_table,
    "api": openapi.reference,
    "clients": snippets.clients_table,
    "corpus": python(snippets.corpus, 'name="corpus"'),
    **{f"client {name}": python(partial(snippets.client, name)) for name in snippets.client_names()},
    **{f"store {name}": python(partial(snippets.store, name), 'with="corpus"') for name in snippets.store_names()},
}


def fill(text: str) -> str:
    """Regenerate all parts of a page."""
    for name, part in PARTS.items():
        opening, closing = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
        if opening in text:
            before, _, rest = text.partition(opening)
            _, found, after = f"\n{rest}".partition(closing)
            if not found:
                sys.exit(f"the part {name} has no closing comment")
            text = f"{before}{opening}\n{part()}\n{closing}{after}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m docs.pages")
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a page is outdated")
    check = parser.parse_args().check
    stale = []
    for page in sorted(DOCS.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            stale.append(page.name)
            if not check:
                page.write_text(filled, encoding="utf-8")
    if check and stale:
        sys.exit(f"generated parts are outdated in {', '.join(stale)}: run `make docs`")


if __name__ == "__main__":
    main()
