"""Files → rows. Everything is looked at before the run starts, and a bad row is named by its file and line."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.exceptions import DatasetGenerationError

from l2v.models import Input
from l2v.models.types import is_unicode
from l2v.training import sources
from l2v.training.errors import TrainingError
from l2v.training.sources import Row

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


def texts(names: Sequence[str], *, lines: bool) -> Dataset:
    """The column `text`, in their order.

    Args:
        names: text files, JSON lines or Parquet with a field `text`, folders of them, or Hub datasets
            (`owner/name` or `owner/name:config`, of which the split `train` is read).
        lines: take each line of a text file as a text of its own, rather than the file as a whole.

    Raises:
        TrainingError: if something cannot be read or there is no text.
    """
    return _dataset(names, lambda path: sources.texts(path, lines), _text)


def pairs(source: str) -> Dataset:
    """The columns of `_pair` of one dataset: batches hold rows of one dataset only.

    Args:
        source: JSON lines or Parquet with the fields `query`, `positive` and optionally `negatives` (a list),
            `instruction`, `symmetric`, `vectors` and `score`; a folder of such files; or a Hub dataset.

    Raises:
        TrainingError: as `texts`.
    """
    return _dataset([source], sources.rows, _pair)


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
    if not is_unicode(text):
        raise ValueError(f"{name} holds half a character (a lone surrogate)")


def _dataset(names: Sequence[str], read: sources.Read, check: Callable[[Row], Row]) -> Dataset:
    found = next(sources.located(names, read), None)
    if found is None:
        raise TrainingError(f"{', '.join(names)}: holds nothing to learn from")
    first = _checked(*found, check)

    def rows(stamp: str) -> Iterator[Row]:
        for where, raw in sources.located(names, read):
            row = _checked(where, raw, check)
            _check_alike(where, row, first)
            yield row

    # Told, since they would be guessed from the first rows.
    features = Features({name: _FEATURES[name] for name in first})
    try:
        return Dataset.from_generator(rows, features=features, gen_kwargs={"stamp": sources.stamp(names)})
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
