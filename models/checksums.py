"""Checksums of a source's files: from its SHA256SUMS, and from the names of its files in the Hub's cache.

SHA256SUMS has the format of `sha256sum`. Exports and the built-in model contain this file; users can add it to
their own folders.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from l2v.models.errors import SourceError
from l2v.models.sources import Source

FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
# The file's name, its expected digest, and the function that computes its actual digest.
_Record = tuple[str, str, Callable[[Path], str]]


def write(folder: Path) -> None:
    """Writes the checksums of all files in the folder to its SHA256SUMS."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in names if name != FILE]
    (folder / FILE).write_text("".join(lines), encoding="utf-8")


@contextmanager
def checking(sources: Sequence[Source]) -> Iterator["Future[int]"]:
    """Compares the sources' files with their checksums in another thread, while the `with` block reads the files too.

    If a file does not match, the error about the mismatch replaces an error of the block, since the mismatch is its
    likely cause.

    Yields:
        A future of the number of files compared. Its `result()` waits for the comparison and raises the errors of
        `check`.
    """
    checked: Future[int] = Future()

    def run() -> None:
        try:
            checked.set_result(sum(map(check, sources)))
        except BaseException as error:
            checked.set_exception(error)

    Thread(target=run, name="checksums", daemon=True).start()  # a daemon, so that Ctrl-C does not wait for it
    try:
        yield checked
    except Exception:
        checked.result()
        raise


def check(source: Source) -> int:
    """Compares the source's files with their checksums.

    Returns:
        The number of files compared; 0 if there are no checksums.

    Raises:
        SourceError: if a file is missing or does not match.
    """
    checked = 0
    for name, expected, digest in [*_from_file(source), *_from_hub_cache(source)]:
        path = source.folder / name
        if not path.is_file() or digest(path) != expected:
            raise SourceError(
                f"{name} of {source.name} is missing or does not match its checksum: download or copy it again"
            )
        checked += 1
    return checked


def _from_file(source: Source) -> Iterator[_Record]:
    """The checksums in the source's SHA256SUMS."""
    sums = source.folder / FILE
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines() if sums.is_file() else ():
        match = _LINE.fullmatch(line)
        if match is None or not (source.folder / match[2]).resolve().is_relative_to(source.folder.resolve()):
            raise SourceError(f"{FILE} of {source.name} is damaged: download or copy it again")
        yield match[2], match[1], _sha256


def _from_hub_cache(source: Source) -> Iterator[_Record]:
    """The checksums that the Hub's cache uses as file names: SHA-256 of large files, git's SHA-1 of small ones."""
    for path in sorted(source.folder.rglob("*")) if source.revision else ():
        blob = path.resolve()
        if path.is_symlink() and blob.parent.name == "blobs" and len(blob.name) in _DIGESTS:
            yield path.relative_to(source.folder).as_posix(), blob.name, _DIGESTS[len(blob.name)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git(path: Path) -> str:
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


# The functions that compute a file's digest, by the number of hexadecimal digits of the digest.
_DIGESTS = {64: _sha256, 40: _git}
