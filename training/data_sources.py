"""Sources of training data: local files, folders and Hub datasets, read as examples."""

import csv
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

Example = dict[str, Any]
# An example with its location, for error messages: file and line, or dataset and row.
Located = tuple[str, Example]
Read = Callable[[Path], Iterator[Located]]
_TEXT = {".txt", ".md", ".rst"}
_ROWS = {".csv", ".jsonl", ".ndjson", ".json", ".parquet"}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def read(sources: Sequence[str], read_file: Read) -> Iterator[Located]:
    """Iterate over the examples of all sources."""
    for source in sources:
        if Path(source).exists():
            for file in _files(source):
                yield from read_file(file)
        else:
            split = _load_from_hub(source)
            # Some datasets, such as WikiText, have blank rows between paragraphs.
            for number, row in enumerate(split, 1):
                if not isinstance(text := row.get("text"), str) or text.strip():
                    yield f"{source}, row {number}", row


def rename(row: Example, columns: Sequence[str]) -> Example:
    """The row, with a further field for each `field=column` of `columns`, which holds the value of that column.

    Raises:
        ValueError: if a column is missing.
    """
    pairs = [mapping.split("=", 1) for mapping in columns]
    if missing := next((column for _, column in pairs if column not in row), None):
        raise ValueError(f"column {missing} is missing (--columns); the columns are {', '.join(map(str, row))}")
    return row | {field: row[column] for field, column in pairs}


def locate(source: str, index: int) -> str:
    """The location of the example that has this index in `data.pairs`."""
    location, _ = next(islice(read([source], read_rows), index, None))
    return location


def digest(source: str) -> str:
    """SHA-256 of the names and contents of a source's data files.

    Raises:
        TrainingError: as in `data.texts`.
    """
    total = hashlib.sha256()
    with _name_file_in_errors(Path(source)):
        for name, file in _contents(source).items():
            total.update(name.encode())
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def stamp(sources: Sequence[str]) -> str:
    """A key for the datasets cache. It changes when a file or the revision of a Hub dataset changes."""
    files = [file for source in sources for file in _contents(source).values()]
    return str([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _contents(source: str) -> dict[str, Path]:
    """The data files of a source, keyed by their path within the source."""
    path = Path(source)
    if path.exists():
        return {"" if file == path else str(file.relative_to(path)): file for file in _files(source)}
    tables = [Path(table["filename"]) for table in _load_from_hub(source).cache_files]
    return {table.name: table for table in tables}


def _files(source: str) -> list[Path]:
    """The source itself if it is a file, else the data files of the folder."""
    path = Path(source)
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _TEXT | _ROWS and file.is_file())
    if not files:
        raise TrainingError(f"{source} contains no file that ends in {', '.join(sorted(_TEXT | _ROWS))}")
    return files


def _load_from_hub(source: str) -> Dataset:
    if not _HUB.fullmatch(source):
        raise TrainingError(f"{source} is neither a local file or folder nor a Hub dataset (owner/name)")
    name, _, config = source.partition(":")
    try:
        found = load_dataset(name, config or None)
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{source} is not a local file or folder, and cannot be fetched from the Hub ({first_line(error)})"
        ) from error
    if not isinstance(found, DatasetDict):
        return found
    if "train" not in found:
        raise TrainingError(f"{source} has no `train` split, only {', '.join(found)}")
    return found["train"]


def read_texts(path: Path, lines: bool) -> Iterator[Located]:
    """Read a file as examples with a field `text`: one for the whole file, or one per line."""
    if path.suffix.lower() in _ROWS:
        yield from read_rows(path)
    elif not lines:
        with _name_file_in_errors(path):
            text = path.read_text(encoding="utf-8-sig")
        if text.strip():
            yield str(path), {"text": text}
    else:
        for location, line in _lines(path):
            yield location, {"text": line.strip()}


def read_rows(path: Path) -> Iterator[Located]:
    """Read the objects of a JSON lines, Parquet or CSV file. An empty cell of a CSV file means null."""
    if path.suffix.lower() == ".parquet":
        with _name_file_in_errors(path):
            table = Dataset.from_parquet(str(path), keep_in_memory=False)
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(table, 1))
        return
    if path.suffix.lower() not in _ROWS:
        raise TrainingError(f"{path} is not in a supported format ({', '.join(sorted(_ROWS))})")
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(path)
        return
    for location, line in _lines(path):
        yield location, _parse_object(line, location)


def _csv_rows(path: Path) -> Iterator[Located]:
    with _name_file_in_errors(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                location = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise TrainingError(f"{location}: the row has more or fewer cells than the first line")
                yield location, {name: cell or None for name, cell in row.items()}
        except csv.Error as error:
            raise TrainingError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The location and text of each non-blank line."""
    with _name_file_in_errors(path), path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", line


def _parse_object(line: str, location: str) -> Example:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{location}: not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise TrainingError(f"{location}: not a JSON object")
    return row


@contextmanager
def _name_file_in_errors(path: Path) -> Iterator[None]:
    """Turn errors while reading a file into `TrainingError`s that name the file."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8") from error
    except (OSError, DatasetGenerationError) as error:
        raise TrainingError(f"{path} cannot be read ({error})") from error
