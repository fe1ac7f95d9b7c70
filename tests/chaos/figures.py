"""What a promise measured, and the page it goes to."""

import datetime
import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.chaos.server import ROOT

PAGE = ROOT / "docs" / "RELIABILITY.md"


@dataclass(frozen=True)
class Figure:
    """One row of a promise.

    Attributes:
        name: what was measured.
        value: what came out.
        target: what was to be reached; "" where the figure only tells.
        kept: whether it was.
        timing: whether a busy machine or a short run can make it miss, so that the short form does not insist on it.
    """

    name: str
    value: str
    target: str = ""
    kept: bool = True
    timing: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.value} (to reach: {self.target or '–'}{'' if self.kept else '; MISSED'})"


def table(figures: list[Figure]) -> str:
    rows = ["| measured | figure | to reach | |", "|---|---|---|---|"]
    for figure in figures:
        mark = "" if not figure.target else "kept" if figure.kept else "**missed**"
        rows.append(f"| {figure.name} | {figure.value} | {figure.target} | {mark} |")
    return "\n".join(rows)


def write(promise: str, command: str, figures: list[Figure], seconds: float) -> None:
    """Puts a promise's figures between its marks on the page."""
    text = PAGE.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- chaos {promise} -->\n).*?(<!-- /chaos {promise} -->)", re.DOTALL)
    if not marked.search(text):
        sys.exit(f"{PAGE.name} lacks the marks of {promise}")
    origin = f"`{command}`, {seconds / 60:.1f} min, {datetime.date.today():%-d %B %Y}, {machine()}."
    text = marked.sub(lambda match: f"{match[1]}\n{table(figures)}\n\n{origin}\n\n{match[2]}", text)
    PAGE.write_text(text, encoding="utf-8")


def machine() -> str:
    """What the figures were taken on."""
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "uvicorn"))
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB; Python {platform.python_version()}, {versions}"
