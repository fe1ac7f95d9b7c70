"""The datasets of a run. Every example is checked before training starts; errors name the file and line."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.exceptions import DatasetGenerationError

from l2v.models import Input
from l2v.models.types import is_unicode
from l2v.training import data_sources
from l2v.training.data_sources import Example
from l2v.training.errors import TrainingError

T = TypeVar("T")

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


def texts(sources: Sequence[str], *, lines: bool, columns: Sequence[str] = ()) -> Dataset:
    """Load texts as a dataset with the column `text`, in the order of the sources.

    Args:
        sources: text files, JSON lines, CSV or Parquet with a field `text`, folders of them, or Hub datasets
            (`owner/name` or `owner/name:config`; the split `train` is used).
        lines: whether each line of a text file is a text, rather than the whole file.
        columns: see `data_sources.rename`.

    Raises:
        TrainingError: if a source cannot be read, or there is no text.
    """
    return _dataset(sources, lambda path: data_sources.read_texts(path, lines), _text, columns)


def pairs(source: str, columns: Sequence[str] = ()) -> Dataset:
    """Load the pairs of one source as a dataset, with the columns of `_pair`.

    Args:
        source: JSON lines, CSV or Parquet with the fields `query`, `positive` and optionally `negatives` (a list) or
            `negative` (one text), `instruction`, `symmetric`, `vectors` and `score`; a folder of such files; or a Hub
            dataset.
        columns: see `data_sources.rename`.

    Raises:
        TrainingError: as in `texts`.
    """
    return _dataset([source], data_sources.read_rows, _pair, columns)


def pair_inputs(row: Example, hard_negatives: int) -> list[Input]:
    """Query, positive and negatives of a pair, with their instructions. Negatives repeat if there are too few."""
    document_instruction = row["instruction"] if row["symmetric"] else ""
    negatives = [row["negatives"][i % len(row["negatives"])] for i in range(hard_negatives)]
    documents = [row["positive"], *negatives]
    return [Input(row["query"], row["instruction"]), *(Input(text, document_instruction) for text in documents)]


def _text(row: Example) -> Example:
    return {"text": non_blank(row, "text")}


def _pair(row: Example) -> Example:
    """Check a row of a supervised dataset, and fill in its optional fields.

    `instruction` applies to the query. In a `symmetric` task, where queries and documents are the same kind of text, it
    applies to the documents too. (The reference dropped this case in May 2024.) `vectors` are a teacher's vectors of
    the query and of the positive. `score` is the target for the cosine similarity of the query and the positive.
    """
    negatives = read_negatives(row)
    instruction, symmetric = read_instruction(row)
    pair = {
        "query": non_blank(row, "query"),
        "positive": non_blank(row, "positive"),
        "negatives": negatives,
        "instruction": instruction,
        "symmetric": symmetric,
    }
    if (vectors := row.get("vectors")) is not None:
        _check_vectors(vectors)
        pair["vectors"] = vectors
    if (score := row.get("score")) is not None:
        if not -1 <= (number := read_score(score)) <= 1:
            raise ValueError("score must be a number from -1 to 1")
        pair["score"] = number
    return pair


def read_negatives(row: Example) -> list[str]:
    """The field `negatives`, or `negative`, as in the reference's data. Raises `ValueError` if it is invalid."""
    if row.get("negative") is not None:
        if row.get("negatives") is not None:
            raise ValueError("negative and negatives exclude each other")
        return [non_blank(row, "negative")]
    negatives = row.get("negatives") or []
    if not isinstance(negatives, list) or not all(isinstance(text, str) and text.strip() for text in negatives):
        raise ValueError("negatives must be a list of non-blank strings; a CSV row has one, in the column `negative`")
    for text in negatives:
        _check_unicode(text, "negatives")
    return negatives


def read_instruction(row: Example) -> tuple[str, bool]:
    """The fields `instruction` and `symmetric`. Raises `ValueError` if one is invalid."""
    instruction, symmetric = row.get("instruction") or "", row.get("symmetric") or False
    if not isinstance(instruction, str):
        raise ValueError("instruction must be a string")  # noqa: TRY004 - invalid data, not a wrong call
    _check_unicode(instruction, "instruction")
    if isinstance(symmetric, str):  # from a CSV file
        symmetric = {"true": True, "false": False}.get(symmetric.lower(), symmetric)
    if not isinstance(symmetric, bool):
        raise ValueError("symmetric must be true or false")  # noqa: TRY004
    return instruction, symmetric


def read_score(value: Any) -> float:
    """A score as a number. Raises `ValueError` if it is not a finite number."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("score must be a number")
    return number


def _check_vectors(value: Any) -> None:
    try:
        vectors = np.asarray(value)
    except ValueError:  # the vectors have different lengths
        vectors = np.empty(0)
    if vectors.shape != (2, vectors.size // 2) or not vectors.size or vectors.dtype.kind not in "fi":
        raise ValueError("vectors must be two vectors of the same length, one for the query and one for the positive")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")


def non_blank(row: Example, name: str) -> str:
    """The text of a field. Raises `ValueError` if it is missing, blank or not valid Unicode."""
    if name not in row:
        raise ValueError(f"field {name} is missing")
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a non-blank string")
    _check_unicode(value, name)
    return value


def _check_unicode(text: str, name: str) -> None:
    if not is_unicode(text):
        raise ValueError(f"{name} contains a lone surrogate, which is not valid Unicode")


def _dataset(
    sources: Sequence[str],
    read_file: data_sources.Read,
    check_fields: Callable[[Example], Example],
    columns: Sequence[str],
) -> Dataset:
    def check(row: Example) -> Example:
        return check_fields(data_sources.rename(row, columns))

    found = next(data_sources.read(sources, read_file), None)
    if found is None:
        raise TrainingError(f"{', '.join(sources)}: no training data found")
    first = checked(*found, check)

    # `stamp` is not used, but as an argument, it is part of the key of the datasets cache.
    def rows(stamp: str) -> Iterator[Example]:
        for location, raw in data_sources.read(sources, read_file):
            row = checked(location, raw, check)
            _check_same_fields(location, row, first)
            yield row

    # Without `features`, `datasets` would infer the types from the first rows only.
    features = Features({name: _FEATURES[name] for name in first})
    try:
        return Dataset.from_generator(
            rows, features=features, gen_kwargs={"stamp": f"{data_sources.stamp(sources)} {columns}"}
        )
    except DatasetGenerationError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, TrainingError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, TrainingError):
            raise cause from None
        raise TrainingError(f"the data cannot be written to the datasets cache: {error.__cause__ or error}") from error


def checked(location: str, row: Example, check: Callable[[Example], T]) -> T:
    """The row as `check` returns it. If `check` raises `ValueError`, raises `TrainingError` with the location."""
    try:
        return check(row)
    except ValueError as error:
        raise TrainingError(f"{location}: {error}") from error


def _check_same_fields(location: str, row: Example, first: Example) -> None:
    if odd := sorted(row.keys() ^ first.keys()):
        raise TrainingError(f"{location}: either all rows of a dataset must have the field {odd[0]}, or none")
    if "vectors" in row and len(row["vectors"][0]) != (width := len(first["vectors"][0])):
        raise TrainingError(
            f"{location}: vectors have {len(row['vectors'][0])} dimensions, but {width} in earlier rows"
        )
