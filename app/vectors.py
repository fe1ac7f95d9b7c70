"""From raw vectors to the response: pure functions on float32 arrays, and the writing of long answers."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from app.jobs import Vectors

# [n, d], in one array or one a row.
Rows = Vectors | Sequence[Vectors]

# Numbers that are written at a stretch: some 3 ms.
_PIECE = 65_536


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


async def write(rows: Sequence[Any] | Vectors, width: int) -> orjson.Fragment:
    """A long list as JSON, in pieces, so that other requests have their turn between them.

    Args:
        rows: what orjson writes, [n, …].
        width: numbers in a row, about.
    """
    step = max(1, _PIECE // max(1, width))
    pieces = []
    for start in range(0, len(rows), step):
        pieces.append(orjson.dumps(rows[start : start + step], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        await asyncio.sleep(0)
    return orjson.Fragment(b"[" + b",".join(pieces) + b"]")


def to_json(content: Any) -> Response:
    """A JSON response, arrays written straight from their memory."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")
