"""From raw vectors to the response: pure functions on float32 arrays."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from l2v.app.engine.jobs import Vectors

# [n, d], in one array or one a row.
Rows = Vectors | Sequence[Vectors]


def finish(rows: Rows, dimensions: int | None, normalized: bool) -> Vectors:
    """The first `dimensions` columns of [n, d] (all where None), then scaled to length 1 if asked."""
    shortened = np.ascontiguousarray(np.asarray(rows)[:, :dimensions])
    return normalize(shortened) if normalized else shortened


def normalize(vectors: Vectors) -> Vectors:
    """Each row of [n, d] scaled to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    normalized: Vectors = vectors / lengths
    return normalized


def scores(queries: Rows, documents: Rows, metric: str) -> Vectors:
    """[q, n] similarities of [q, d] and [n, d] by `cosine` (within -1…1) or `dot`."""
    queries, documents = np.asarray(queries), np.asarray(documents)
    if metric == "dot":
        return queries @ documents.T
    return (normalize(queries) @ normalize(documents).T).clip(-1, 1)


def best(matrix: Vectors, top_k: int) -> list[list[dict[str, Any]]]:
    """For each row of [q, n] its `top_k` highest columns as {"index", "score"}, best first, ties by position."""
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :top_k]
    ranked = np.take_along_axis(matrix, order, axis=1)
    return [
        [{"index": index, "score": score} for index, score in zip(places, row, strict=True)]
        for places, row in zip(order.tolist(), ranked, strict=True)
    ]


def encode_base64(vectors: Vectors) -> list[str]:
    """Each row as base64 of its little-endian float32 numbers."""
    return [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4", copy=False)]
