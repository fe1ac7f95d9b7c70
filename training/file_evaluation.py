"""Evaluation of an encoder on a file of pairs with scores, or of triplets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from l2v.models import Input
from l2v.training.data import checked, non_blank, read_instruction, read_negatives, read_score
from l2v.training.data_sources import Example, read, read_rows, rename
from l2v.training.errors import TrainingError

Encode = Callable[[Sequence[Input]], NDArray[np.float32]]


@dataclass(frozen=True)
class Score:
    """The main score of a task, from 0 to 1 (correlations from -1).

    Attributes:
        task: the task's name, or the file.
        metric: the score's name.
        score: the score.
        instruction: the instruction of the queries.
    """

    task: str
    metric: str
    score: float
    instruction: str


class _Row(NamedTuple):
    """A query and its documents, the positive first, and the pair's score if it has one."""

    query: Input
    documents: list[Input]
    score: float | None


def evaluate_file(file: Path, columns: Sequence[str], encode: Encode, instruction: str = "") -> Score:
    """Score an encoder on pairs or triplets.

    Pairs have `query`, `positive` and `score`; the result is Spearman's correlation of their cosines with the scores.
    Triplets have `query`, `positive` and `negatives` or `negative`; the result is the share of rows whose positive is
    nearer to the query than all negatives are.

    Args:
        file: JSON lines, CSV or Parquet.
        columns: see `data_sources.rename`.
        encode: returns the vectors of inputs, [n, d].
        instruction: the instruction for queries without their own, and for documents in rows with `symmetric`.

    Raises:
        TrainingError: if the file cannot be read, if a row is neither a pair nor a triplet, or if the file holds both.
    """
    rows = list(_rows(file, columns, instruction))
    if not rows:
        raise TrainingError(f"{file} contains no rows")
    given = {row.query.instruction for row in rows}
    vectors = encode([each for row in rows for each in (row.query, *row.documents)])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths == 0, 1, lengths)
    stops = np.cumsum([1 + len(row.documents) for row in rows])
    cosines = [part[1:] @ part[0] for part in np.split(unit, stops[:-1])]
    shown = next(iter(given)) if len(given) == 1 else "each row's own"
    if rows[0].score is not None:
        correlation = spearmanr([row[0] for row in cosines], [row.score for row in rows]).statistic
        return Score(str(file), "spearman", float(correlation), shown)
    return Score(str(file), "accuracy", float(np.mean([row[0] > row[1:].max() for row in cosines])), shown)


def _rows(file: Path, columns: Sequence[str], instruction: str) -> Iterator[_Row]:
    scored = None
    for location, raw in read([str(file)], read_rows):
        row = checked(location, raw, lambda row: _row(rename(row, columns), instruction))
        if scored is None:
            scored = row.score is not None
        if scored != (row.score is not None):
            raise TrainingError(f"{location}: all rows must be pairs with a score, or all must be triplets")
        yield row


def _row(row: Example, default: str) -> _Row:
    own, symmetric = read_instruction(row)
    instruction, negatives = own or default, read_negatives(row)
    score = None if row.get("score") is None else read_score(row["score"])
    if (score is None) == (not negatives):
        raise ValueError("a row needs either a score or negatives")
    texts = [non_blank(row, "positive"), *negatives]
    documents = [Input(text, instruction if symmetric else "") for text in texts]
    return _Row(Input(non_blank(row, "query"), instruction), documents, score)
