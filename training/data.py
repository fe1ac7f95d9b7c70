"""Files → rows. Everything is looked at before the run starts, and a bad row is named by its file and line."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, List, Value, load_dataset
from datasets.exceptions import DatasetGenerationError

from models import Input
from training.errors import TrainingError

Row = dict[str, Any]
_TEXT = {".txt", ".md", ".rst"}
_ROWS = {".jsonl", ".json", ".parquet"}
_FEATURES = {
    "text": Value("string"),
    "query": Value("string"),
    "positive": Value("string"),
    "negatives": List(Value("string")),
    "instruction": Value("string"),
    "symmetric": Value("bool"),
    "vectors": List(List(Value("float32"))),
    "score": Value("float64"),
}
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


def place(source: str, index: int) -> str:
    """Where a row of `pairs` stands: file and line."""
    where, _ = next(islice(_located([source], _rows), index, None))
    return where


def digest(source: str) -> str:
    """SHA-256 of a file, of what is read of a folder with the files' names, or of a Hub dataset's tables as fetched.

    Raises:
        TrainingError: as `texts`.
    """
    path, total = Path(source), hashlib.sha256()
    with _opened(path):
        if path.exists():
            files = {"" if file == path else str(file.relative_to(path)): file for file in _files(source)}
        else:
            tables = [Path(table["filename"]) for table in _hub(source).cache_files]
            files = {table.name: table for table in tables}
        for name, file in files.items():
            total.update(name.encode())
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


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
    for text in negatives:
        _check_whole(text, "negatives")
    instruction, symmetric = row.get("instruction") or "", row.get("symmetric") or False
    if not isinstance(instruction, str):
        raise ValueError("instruction must be a text")  # noqa: TRY004 - of a row, not of a call
    _check_whole(instruction, "instruction")
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
        pair["vectors"] = _two_vectors(vectors)
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


def _two_vectors(given: Any) -> Any:
    try:
        vectors = np.asarray(given)
    except ValueError:  # of more than one length
        vectors = np.empty(0)
    if vectors.shape != (2, vectors.size // 2) or not vectors.size or vectors.dtype.kind not in "fi":
        raise ValueError("vectors must be two of one length: of the query and of the positive")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be of finite numbers")
    return given


def _string(row: Row, name: str) -> str:
    if name not in row:
        raise ValueError(f"no field {name}")
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text that is not blank")
    _check_whole(value, name)
    return value


def _check_whole(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} holds half a character (a lone surrogate)") from error


def _dataset(
    sources: Sequence[str], read: Callable[[Path], Iterator[tuple[str, Row]]], check: Callable[[Row], Row]
) -> Dataset:
    located = next(_located(sources, read), None)
    if located is None:
        raise TrainingError(f"{', '.join(sources)}: holds nothing to learn from")
    first = _checked(*located, check)

    def rows(stamp: str) -> Iterator[Row]:
        for where, raw in _located(sources, read):
            row = _checked(where, raw, check)
            _check_alike(where, row, first)
            yield row

    # Told, since they would be guessed from the first rows.
    features = Features({name: _FEATURES[name] for name in first})
    try:
        return Dataset.from_generator(rows, features=features, gen_kwargs={"stamp": _stamp(sources)})
    except DatasetGenerationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, TrainingError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, TrainingError):
            raise cause from None
        raise TrainingError(f"the data cannot be kept in the cache of datasets: {error.__cause__ or error}") from error


def _checked(where: str, row: Row, check: Callable[[Row], Row]) -> Row:
    try:
        return check(row)
    except ValueError as error:
        raise TrainingError(f"{where}: {error}") from error


def _check_alike(where: str, row: Row, first: Row) -> None:
    if odd := sorted(row.keys() ^ first.keys()):
        raise TrainingError(f"{where}: all rows of a dataset have a field {odd[0]}, or none has")
    if "vectors" in row and len(row["vectors"][0]) != (width := len(first["vectors"][0])):
        raise TrainingError(f"{where}: vectors have {len(row['vectors'][0])} numbers, those above {width}")


def _stamp(sources: Sequence[str]) -> str:
    """Differs when a file does: what was read once is kept in the cache of datasets."""
    files = [file for source in sources if Path(source).exists() for file in _files(source)]
    return str([(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _located(sources: Sequence[str], read: Callable[[Path], Iterator[tuple[str, Row]]]) -> Iterator[tuple[str, Row]]:
    for source in sources:
        if Path(source).exists():
            for file in _files(source):
                yield from read(file)
        else:
            split = _hub(source)
            # Datasets as WikiText hold blank rows between their paragraphs.
            with_text = "text" in split.column_names
            for number, row in enumerate(split, 1):
                if not with_text or row["text"] is None or row["text"].strip():
                    yield f"{source}, row {number}", row


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
    except (OSError, ValueError, ConnectionError) as error:
        raise TrainingError(f"{source}: no such folder, and as a Hub dataset it cannot be fetched ({error})") from error
    if not isinstance(found, DatasetDict):
        return found
    if "train" not in found:
        raise TrainingError(f"{source}: has no split train, but {', '.join(found)}")
    return found["train"]


def _texts(path: Path, lines: bool) -> Iterator[tuple[str, Row]]:
    if path.suffix in _ROWS:
        yield from _rows(path)
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


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
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
