"""Public text: data files, the manual pages of this machine, and the docs in Python's standard library."""

import ast
import gzip
import json
import re
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from l2v.training.errors import TrainingError

MANUAL = Path("/usr/share/man")
_SENTENCE = re.compile(r"(?<=[.!?]) +")
_ROFF_ESCAPE = re.compile(r"\\(?:f(?:\[\w*\]|\(..|.)|s[-+]?\d+|[&/,|^%]|\*\(..|\*.|m\[\w*\])")
_ROFF_NAMED = {
    r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(bu": "", r"\(em": "–", r"\(en": "–", r"\(cq": "'", r"\(oq": "'",
    r"\(lq": '"', r"\(rq": '"', r"\(dq": '"', r"\ ": " ", r"\~": " ", r"\'": "'", r"\`": "`",
}  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A manual page: its name, the summary in its NAME section, and the paragraphs of its description."""

    name: str
    summary: str
    paragraphs: list[str]

    @property
    def held_out(self) -> bool:
        """Whether the page is kept for evaluation, as one in ten is."""
        return zlib.crc32(self.name.encode()) % 10 == 0


def rows(path: Path) -> Iterator[Any]:
    """Iterate over the lines of a gzipped file, parsing JSON lines. Raises `TrainingError` if it does not exist."""
    if not path.is_file():
        raise TrainingError(f"{path} does not exist")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line) if ".jsonl" in path.name else line.strip()


def sentences(text: str) -> list[str]:
    """Split a text into sentences, and drop very short and very long ones."""
    return [part for part in _SENTENCE.split(" ".join(text.split())) if 3 < part.count(" ") < 60]


def held_out(key: str) -> bool:
    """Whether the synset with this definition is kept for evaluation, as one in twenty is."""
    return zlib.crc32(key.encode()) % 20 == 0


def python_docs() -> Iterator[tuple[str, list[str]]]:
    """Iterate over (name, paragraphs) of pydoc's topics and of the standard library's docstrings."""
    for name, text in sorted(topics.items()):
        yield name, text.split("\n\n")
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.relative_to(root).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (doc := ast.get_docstring(node)):
                yield getattr(node, "name", path.stem).strip("_").replace("_", " "), doc.split("\n\n")


def manual_pages(root: Path = MANUAL) -> list[Page]:
    """Read the English manual pages of this machine, sorted by name; of pages with the same summary, only the first."""
    pages: dict[str, Page] = {}
    for path in sorted(root.glob("man[1-8]/*.gz")):
        # Skip the thousands of pages of Google Cloud's tools, which few machines have.
        if path.is_symlink() or path.name.startswith("gcloud"):
            continue
        with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
            page = _page(path.name.split(".")[0], file.read(200_000))
        if page and page.summary not in pages:
            pages[page.summary] = page
    return list(pages.values())


def _page(name: str, source: str) -> Page | None:
    sections = re.split(r"^\.\s*S[Hh]\s+", source, flags=re.MULTILINE)
    texts = {section.split("\n", 1)[0].strip('" '): section.partition("\n")[2] for section in sections[1:]}
    line = " ".join(_plain(texts.get("NAME", "")).split())
    summary = re.split(r" +(?:-|–|--) +", line, maxsplit=1)[-1].strip(" .")
    if summary == line or summary.count(" ") < 2 or len(summary) > 200:
        return None
    body = texts.get("DESCRIPTION", "")
    paragraphs = re.split(r"^\.\s*(?:PP|P|LP|Pp|TP|IP|HP|sp|RS|RE|It)\b.*$", body, flags=re.MULTILINE)
    plain = [" ".join(_plain(p).split()) for p in paragraphs]
    return Page(name, summary, [p for p in plain if p.count(" ") > 4])


def _plain(roff: str) -> str:
    """The plain text of roff source: keeps the arguments of font macros, drops all other requests."""
    lines = []
    for line in roff.splitlines():
        font = re.match(r"\.\s*(?:B|I|BR|RB|BI|IB|IR|RI|Nm|Nd|Ar|Fl|Pa)\s+(.*)", line)
        if font:
            lines.append(("- " if line.startswith(".Nd") else "") + font[1].replace('"', ""))
        elif not line.startswith((".", "'")):
            lines.append(line)
    text = "\n".join(lines)
    for name, character in _ROFF_NAMED.items():
        text = text.replace(name, character)
    return re.sub(r"\\.", "", _ROFF_ESCAPE.sub("", text))
