"""Pure functions on float32 arrays: from the model's vectors to those of the response."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
# [n, d], as one array or as one array per row.
Rows = Vectors | Sequence[Vectors]


def postprocess(rows: Rows, dimensions: int | None, normalized: bool) -> Vectors:
    """Truncates [n, d] to the first `dimensions` columns (None keeps all), then normalizes if asked to."""
    shortened = np.ascontiguousarray(np.asarray(rows)[:, :dimensions])
    return normalize(shortened) if normalized else shortened


def normalize(vectors: Vectors) -> Vectors:
    """Scales each row of [n, d] to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    normalized: Vectors = vectors / lengths
    return normalized


def similarity(queries: Rows, documents: Rows, metric: str) -> Vectors:
    """The [q, n] similarities of [q, d] and [n, d] by `cosine` (clipped to -1…1) or `dot`."""
    queries, documents = np.asarray(queries), np.asarray(documents)
    if metric == "dot":
        return queries @ documents.T
    return (normalize(queries) @ normalize(documents).T).clip(-1, 1)


def top_k(matrix: Vectors, k: int) -> tuple[NDArray[np.int64], Vectors]:
    """The columns and values of the `k` highest entries in each row of [q, n], highest first, ties by position."""
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(matrix, order, axis=1)
