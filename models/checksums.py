"""Whether a source's files are those that were written: by its SHA256SUMS, or by what the Hub says of each.

SHA256SUMS is what `sha256sum` writes and `sha256sum --check` reads. Our exports and the built-in model have one; anyone
can make one for a folder of their own.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from l2v.models.errors import SourceError
from l2v.models.sources import Source

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_Record = tuple[str, str, Callable[[Path], str]]


def write(folder: Path) -> None:
    """Records every file below the folder in its SHA256SUMS."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names if name != FILE]
    (folder / FILE).write_text("".join(lines), encoding="utf-8")


def check(source: Source) -> int:
    """How many files of the source are what was recorded; 0 for a source without record.

    Raises:
        SourceError: for a file that is missing or another.
    """
    checked = 0
    for name, expected, digest in [*_listed(source), *_named_by_the_hub(source)]:
        path = source.folder / name
        if not path.is_file() or digest(path) != expected:
            raise SourceError(
                f"{name} of {source.name} is missing or not what was recorded of it: fetch or copy it again"
            )
        checked += 1
    return checked


def _listed(source: Source) -> Iterator[_Record]:
    """The lines of the source's SHA256SUMS."""
    sums = source.folder / FILE
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums.is_file() else ():
        match = _LINE.fullmatch(line)
        if match is None or not (source.folder / match[2]).resolve().is_relative_to(source.folder.resolve()):
            raise SourceError(f"{FILE} of {source.name} is damaged: fetch or copy it again")
        yield match[2], match[1], _sha256


def _named_by_the_hub(source: Source) -> Iterator[_Record]:
    """The files of the Hub's cache, which names each by its content: large ones by SHA-256, small ones as git does."""
    for path in sorted(source.folder.iterdir()) if source.revision else ():
        blob = path.resolve()
        if path.is_symlink() and blob.parent.name == "blobs" and len(blob.name) in _HUB:
            yield path.name, blob.name, _HUB[len(blob.name)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


# By how many hexadecimal digits each has.
_HUB = {64: _sha256, 40: _git}
