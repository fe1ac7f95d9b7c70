"""Measured figures, and the page that they are written to."""

import datetime
import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version

import psutil

from bench.origin import commit, machine
from tests.chaos.server import ROOT

PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Figure:
    """One row of a table.

    Attributes:
        name: what was measured.
        value: the result.
        target: the required result; "" if there is none.
        met: whether the target was met.
        timing: whether a busy machine or a short run can miss the target. The short form ignores such misses.
    """

    name: str
    value: str
    target: str = ""
    met: bool = True
    timing: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.value} (target: {self.target or '–'}{'' if self.met else '; MISSED'})"


def table(figures: list[Figure]) -> str:
    rows = ["| measured | value | target | |", "|---|---|---|---|"]
    for figure in figures:
        mark = "" if not figure.target else "met" if figure.met else "**missed**"
        rows.append(f"| {figure.name} | {figure.value} | {figure.target} | {mark} |")
    return "\n".join(rows)


def write(promise: str, command: str, figures: list[Figure], seconds: float) -> None:
    """Writes the figures of a promise between its markers on the page."""
    text = PAGE.read_text(encoding="utf-8")
    section = re.compile(rf"(<!-- chaos {promise} -->\n).*?(<!-- /chaos {promise} -->)", re.DOTALL)
    if not section.search(text):
        sys.exit(f"{PAGE.name} has no markers for {promise}")
    ending = f"{origin(command, seconds)}."
    text = section.sub(lambda match: f"{match[1]}\n{table(figures)}\n\n{ending}\n\n{match[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


def origin(command: str, seconds: float) -> str:
    """How, when and on what the figures were measured."""
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "uvicorn"))
    return (
        f"`{command}`, {seconds / 60:.1f} min, {datetime.date.today():%-d %B %Y}, commit {commit()}, {machine('cpu')}, "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {versions}"
    )
