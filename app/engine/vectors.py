"""Pure functions on float32 arrays that turn the model's vectors into the numbers of a response."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from l2v.app.engine.output_types import Numbers, OutputDtype, quantize
from l2v.models.types import Int8Scale

Vectors = NDArray[np.float32]
# [n, d], as one array or as one array per row.
Rows = Vectors | Sequence[Vectors]


def postprocess(
    rows: Rows, dimensions: int | None, normalized: bool, dtype: OutputDtype = "float", scale: Int8Scale = "maximum"
) -> Numbers:
    """Truncates the rows to the first `dimensions` numbers (None keeps all), and then normalizes or quantizes them.

    Args:
        rows: the vectors, [n, d].
        dimensions: how many leading numbers of each vector to keep; None means all.
        normalized: whether to scale each vector to length 1. This argument has no effect if `dtype` is an integer type.
        dtype: the type of the numbers.
        scale: how int8 numbers are scaled.
    """
    kept = _stack(rows, dimensions)
    if dtype != "float":
        return quantize(kept, dtype, scale)
    return normalize(kept) if normalized else kept


def normalize(vectors: Vectors) -> Vectors:
    """Scales each row of [n, d] to length 1; a zero row stays zero."""
    lengths: Vectors = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    lengths[lengths == 0] = 1
    normalized: Vectors = vectors / lengths
    return normalized


def _stack(rows: Rows, dimensions: int | None = None) -> Vectors:
    """The first `dimensions` numbers of each row, as one contiguous array; None means all numbers.

    A list is copied one row at a time, so that other threads can run between two rows.
    """
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows[:, :dimensions])
    stacked = np.empty((len(rows), rows[0][:dimensions].size), np.float32)
    for index, row in enumerate(rows):
        stacked[index] = row[:dimensions]
    return stacked


def similarity(
    queries: Rows, documents: Rows, metric: str, dimensions: int | None = None, *, normalized: bool = False
) -> Vectors:
    """The similarities of all queries to all documents.

    Args:
        queries: the vectors of the queries, [q, d].
        documents: the vectors of the documents, [n, d].
        metric: `cosine` (clipped to -1…1) or `dot`.
        dimensions: the number of leading dimensions to compare; None means all.
        normalized: whether `dot` scales the vectors to length 1 before it truncates them, as a model that normalizes
            its vectors does. This argument has no effect on `cosine`.

    Returns:
        The similarities, [q, n].
    """
    left, right = _stack(queries), _stack(documents)
    if normalized and metric == "dot":
        left, right = normalize(left), normalize(right)
    left, right = left[:, :dimensions], right[:, :dimensions]
    if metric == "dot":
        return left @ right.T
    return (normalize(left) @ normalize(right).T).clip(-1, 1)


def top_k(matrix: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
    """The columns and values of the `k` highest entries in each row of [q, n], highest first, ties by position."""
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(matrix, order, axis=1)
