"""Writes the generated tables into README.md, or with --check says whether they are as the code has them."""

import argparse
import re
import sys
from pathlib import Path

from app.settings import table as settings_table
from models.published import STACKS

README = Path(__file__).parents[1] / "README.md"


def stacks_table() -> str:
    """The published stacks by their short names."""
    rows = ["| `--model` | base | weights in bfloat16 | licence to accept |", "|---|---|---|---|"]
    for family in dict.fromkeys(name.rsplit("-", 1)[0] for name in STACKS if name != "demo"):
        stack = STACKS[f"{family}-mntp"]
        names = " · ".join(f"`{family}-{stage}`" for stage in ("supervised", "unsupervised", "mntp"))
        rows.append(f"| {names} | {stack.base} | {stack.memory:.1f} GB | {'yes' if stack.gated else 'no'} |")
    return "\n".join(rows)


def fill(text: str) -> str:
    """README.md with each table between its marks."""
    for name, table in (("settings", settings_table()), ("stacks", stacks_table())):
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            sys.exit(f"README.md lacks the marks of the table {name}")
        text = marked.sub(lambda match, table=table: match[1] + table + match[2], text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = README.read_text(encoding="utf-8")
    filled = fill(text)
    if not parser.parse_args().check:
        README.write_text(filled, encoding="utf-8")
    elif filled != text:
        sys.exit("the tables of README.md are not those of the code: run `make docs`")


if __name__ == "__main__":
    main()
