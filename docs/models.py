"""The tables of published models: sizes and licences from the code, and what each was compared with from the tests."""

import json
from functools import cache
from pathlib import Path

from l2v.models.published import STACKS, STAGES, Stack

PARITY = Path(__file__).parents[1] / "tests" / "parity"


def llm2vec_table() -> str:
    """LLM2Vec's models, one row for each base, with the stages that it has."""
    by_base: dict[str, list[str]] = {}
    for name, stack in STACKS.items():
        if stack.model.startswith("McGill-NLP/"):
            by_base.setdefault(stack.base, []).append(name)
    rows = []
    for names in by_base.values():
        family = names[0].removesuffix("mntp")
        stages = ", ".join(f"`{stage}`" for stage in reversed(STAGES) if f"{family}{stage}" in names)
        rows.append(_row(f"{family}…", STACKS[names[0]], stages))
    return _table("| `--model` | stages | dimensions | weights | licence of the base | compared with |", rows)


def other_table() -> str:
    """The models of other methods."""
    rows = [_row(name, stack, f"{stack.tokens:,}") for name, stack in STACKS.items() if stack.model == stack.base]
    return _table("| `--model` | tokens | dimensions | weights | licence | compared with |", rows)


def _table(header: str, rows: list[str]) -> str:
    return "\n".join([header, "|---" * (header.count("|") - 1) + "|", *rows])


def _row(name: str, stack: Stack, cell: str) -> str:
    licence = stack.licence + ", to accept on the Hub" * stack.gated
    reference = _references().get(stack.model) or _references().get(stack.base) or "nothing"
    link = f"[`{name}`](https://huggingface.co/{stack.base})"
    return f"| {link} | {cell} | {stack.dimensions:,} | {stack.memory:.1f} GB | {licence} | {reference} |"


@cache
def _references() -> dict[str, str]:
    """What computed the expected vectors for each repository's layout, by its Hub id."""
    found = {}
    for path in PARITY.glob("stacks/*/mntp/adapter_config.json"):
        found[json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]] = "llm2vec"
    for path in PARITY.glob("families/goldens/*.json"):
        golden = json.loads(path.read_text(encoding="utf-8"))
        plain = golden["source"].startswith(("The publisher's code was not run", "The plain class"))
        found |= dict.fromkeys(golden["repositories"], "plain class" if plain else "sentence-transformers")
    return found
