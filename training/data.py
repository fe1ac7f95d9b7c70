"""Files → rows. Everything is looked at before the run starts, and a bad row is named by its file and line."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError

from models import Input
from training.errors import TrainingError

Row = dict[str, Any]
_TEXT = {".txt", ".md", ".rst"}
_ROWS = {".jsonl", ".json", ".parquet"}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def texts(sources: Sequence[str], *, lines: bool) -> Dataset:
    """The column `text`, in the order of the sources.

    Args:
        sources: text files, JSON lines or Parquet with a field `text`, folders of them, or Hub datasets
            (`owner/name` or `owner/name:config`, of which the split `train` is read).
        lines: take each line of a text file as a text of its own, rather than the file as a whole.

    Raises:
        TrainingError: if something cannot be read or there is no text.
    """
    return _dataset(sources, lambda path: _texts(path, lines), _text)


def pairs(source: str) -> Dataset:
    """The columns of `_pair` of one dataset: batches hold rows of one dataset only.

    Args:
        source: JSON lines or Parquet with the fields `query`, `positive` and optionally `negatives` (a list),
            `instruction`, `symmetric`, `vectors` and `score`; a folder of such files; or a Hub dataset.

    Raises:
        TrainingError: as `texts`.
    """
    return _dataset([source], _rows, _pair)


def _text(row: Row) -> Row:
    return {"text": _string(row, "text")}


def _pair(row: Row) -> Row:
    """One row of a supervised dataset.

    `instruction` stands before queries, and before the documents too where the task is `symmetric`: where both sides
    are of one kind. (The reference lost the symmetric side in May 2024.) `vectors` are a teacher's, of query and
    positive. `score` is the cosine that these two are to have.
    """
    negatives = row.get("negatives") or []
    if not isinstance(negatives, list) or not all(isinstance(text, str) and text.strip() for text in negatives):
        raise ValueError("negatives must be a list of texts")
    instruction, symmetric = row.get("instruction") or "", row.get("symmetric") or False
    if not isinstance(instruction, str):
        raise ValueError("instruction must be a text")  # noqa: TRY004 - of a row, not of a call
    if not isinstance(symmetric, bool):
        raise ValueError("symmetric must be true or false")  # noqa: TRY004
    pair = {
        "query": _string(row, "query"),
        "positive": _string(row, "positive"),
        "negatives": negatives,
        "instruction": instruction,
        "symmetric": symmetric,
    }
    if (vectors := row.get("vectors")) is not None:
        if len(vectors) != 2 or len(vectors[0]) != len(vectors[1]):
            raise ValueError("vectors must be two of one length: of the query and of the positive")
        pair["vectors"] = vectors
    if (score := row.get("score")) is not None:
        if not isinstance(score, int | float) or isinstance(score, bool) or not -1 <= score <= 1:
            raise ValueError("score must be a number from -1 to 1")
        pair["score"] = float(score)
    return pair


def sides(row: Row, hard_negatives: int) -> list[Input]:
    """Query, positive and as many negatives as asked for; a row that has fewer repeats them."""
    behind = row["instruction"] if row["symmetric"] else ""
    negatives = [row["negatives"][i % len(row["negatives"])] for i in range(hard_negatives)]
    return [Input(row["query"], row["instruction"]), *(Input(text, behind) for text in [row["positive"], *negatives])]


def _string(row: Row, name: str) -> str:
    if name not in row:
        raise ValueError(f"no field {name}")
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not blank")
    return value


def _dataset(
    sources: Sequence[str], read: Callable[[Path], Iterator[tuple[str, Row]]], check: Callable[[Row], Row]
) -> Dataset:
    def rows(stamp: str) -> Iterator[Row]:
        columns: set[str] = set()
        for where, row in _located(sources, read):
            try:
                checked = check(row)
            except ValueError as error:
                raise TrainingError(f"{where}: {error}") from error
            columns = columns or set(checked)
            if odd := sorted(columns ^ set(checked)):
                raise TrainingError(f"{where}: all rows of a dataset have a field {odd[0]}, or none has")
            yield checked

    try:
        if next(_located(sources, read), None) is None:
            raise TrainingError(f"{', '.join(sources)}: holds nothing to learn from")
        return Dataset.from_generator(rows, gen_kwargs={"stamp": _stamp(sources)})
    except DatasetGenerationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, TrainingError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, TrainingError):
            raise cause from None
        raise TrainingError(f"the data cannot be kept in the cache of datasets: {error.__cause__ or error}") from error


def _stamp(sources: Sequence[str]) -> str:
    """Differs when a file does: what was read once is kept in the cache of datasets."""
    files = [file for source in sources for file in (Path(source), *sorted(Path(source).rglob("*")))]
    return str([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()])


def _located(sources: Sequence[str], read: Callable[[Path], Iterator[tuple[str, Row]]]) -> Iterator[tuple[str, Row]]:
    for source in sources:
        path = Path(source).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in _TEXT | _ROWS and file.is_file())
            if not files:
                raise TrainingError(f"{source}: no file of it ends in {', '.join(sorted(_TEXT | _ROWS))}")
            for file in files:
                yield from read(file)
        elif path.is_file():
            yield from read(path)
        elif _HUB.fullmatch(source):
            for number, row in enumerate(_hub(source), 1):
                yield f"{source}, row {number}", row
        else:
            raise TrainingError(f"{source}: neither a file or folder here nor a Hub dataset (owner/name)")


def _hub(source: str) -> Dataset:
    name, _, config = source.partition(":")
    try:
        found = load_dataset(name, config or None)
    except (OSError, ValueError, ConnectionError) as error:
        raise TrainingError(f"{source}: no such folder, and as a Hub dataset it cannot be fetched ({error})") from error
    split = found["train"] if isinstance(found, DatasetDict) else found
    # Datasets as WikiText hold blank rows between their paragraphs.
    return split.filter(lambda row: bool(row["text"].strip())) if "text" in split.column_names else split


def _texts(path: Path, lines: bool) -> Iterator[tuple[str, Row]]:
    if path.suffix in _ROWS:
        yield from _rows(path)
    elif not lines:
        with _opened(path):
            text = path.read_text(encoding="utf-8")
        if text.strip():
            yield str(path), {"text": text}
    else:
        with _opened(path), path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}, line {number}", {"text": line.strip()}


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    if path.suffix == ".parquet":
        with _opened(path):
            table = Dataset.from_parquet(str(path), keep_in_memory=False)
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(table, 1))
        return
    if path.suffix not in _ROWS:
        raise TrainingError(f"{path}: rows are read from {', '.join(sorted(_ROWS))}")
    with _opened(path), path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}, line {number}", _object(line, f"{path}, line {number}")


def _object(line: str, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TrainingError(f"{where}: no JSON ({error})") from error
    if not isinstance(row, dict):
        raise TrainingError(f"{where}: no JSON object")
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
