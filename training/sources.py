"""Files, folders and Hub datasets as rows, each with where it stands."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError

from l2v.models.errors import first_line
from l2v.training.errors import TrainingError

Row = dict[str, Any]
Read = Callable[[Path], Iterator[tuple[str, Row]]]
_TEXT = {".txt", ".md", ".rst"}
_ROWS = {".jsonl", ".ndjson", ".json", ".parquet"}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def located(sources: Sequence[str], read: Read) -> Iterator[tuple[str, Row]]:
    """The rows of all sources, each with where it stands; files are read by `read`."""
    for source in sources:
        if Path(source).exists():
            for file in _files(source):
                yield from read(file)
        else:
            split = _hub(source)
            # Datasets as WikiText hold blank rows between their paragraphs.
            for number, row in enumerate(split, 1):
                if not isinstance(text := row.get("text"), str) or text.strip():
                    yield f"{source}, row {number}", row


def place(source: str, index: int) -> str:
    """Where a row of `data.pairs` stands: file and line."""
    where, _ = next(islice(located([source], rows), index, None))
    return where


def digest(source: str) -> str:
    """SHA-256 of a file, of what is read of a folder with the files' names, or of a Hub dataset's tables as fetched.

    Raises:
        TrainingError: as `data.texts`.
    """
    total = hashlib.sha256()
    with _opened(Path(source)):
        for name, file in _contents(source).items():
            total.update(name.encode())
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def stamp(sources: Sequence[str]) -> str:
    """Differs when a file does, or a Hub dataset's revision: what was read once is kept in the cache of datasets."""
    files = [file for source in sources for file in _contents(source).values()]
    return str([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _contents(source: str) -> dict[str, Path]:
    """The files that are read of a source, by their names in it; of a Hub dataset the tables as fetched."""
    path = Path(source)
    if path.exists():
        return {"" if file == path else str(file.relative_to(path)): file for file in _files(source)}
    tables = [Path(table["filename"]) for table in _hub(source).cache_files]
    return {table.name: table for table in tables}


def _files(source: str) -> list[Path]:
    """The file, or those of the folder that hold text or rows."""
    path = Path(source)
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix in _TEXT | _ROWS and file.is_file())
    if not files:
        raise TrainingError(f"{source}: no file of it ends in {', '.join(sorted(_TEXT | _ROWS))}")
    return files


def _hub(source: str) -> Dataset:
    if not _HUB.fullmatch(source):
        raise TrainingError(f"{source}: neither a file or folder here nor a Hub dataset (owner/name)")
    name, _, config = source.partition(":")
    try:
        found = load_dataset(name, config or None)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{source}: no such folder, and as a Hub dataset it cannot be fetched ({first_line(error)})"
        ) from error
    if not isinstance(found, DatasetDict):
        return found
    if "train" not in found:
        raise TrainingError(f"{source}: has no split train, but {', '.join(found)}")
    return found["train"]


def texts(path: Path, lines: bool) -> Iterator[tuple[str, Row]]:
    """A file as rows with a field `text`: as a whole, or by its lines."""
    if path.suffix in _ROWS:
        yield from rows(path)
    elif not lines:
        with _opened(path):
            text = path.read_text(encoding="utf-8-sig")
        if text.strip():
            yield str(path), {"text": text}
    else:
        with _opened(path), path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", {"text": line.strip()}


def rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The objects of JSON lines or Parquet."""
    if path.suffix == ".parquet":
        with _opened(path):
            table = Dataset.from_parquet(str(path), keep_in_memory=False)
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(table, 1))
        return
    if path.suffix not in _ROWS:
        raise TrainingError(f"{path}: rows are read from {', '.join(sorted(_ROWS))}")
    with _opened(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def _object(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise TrainingError(f"{where}: not a JSON object")
    return row


@contextmanager
def _opened(path: Path) -> Iterator[None]:
    """Names the file in whatever goes wrong while it is read."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path}: is not UTF-8") from error
    except (OSError, DatasetGenerationError) as error:
        raise TrainingError(f"{path}: cannot be read ({error})") from error
