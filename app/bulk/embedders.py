"""The interface of what embeds rows, in this process or through a service."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.vectors import Vectors

# The part of a model's information that a resumed run must find unchanged.
_IDENTITY = (
    "model",
    "base",
    "dimensions",
    "attention",
    "pooling",
    "template",
    "max_length",
    "doc_max_length",
    "skip_instruction",
    "dtype",
    "sources",
)


@dataclass(frozen=True, slots=True)
class EmbeddedRows:
    """The outcome of one batch of rows.

    Attributes:
        rows: the good rows, in order.
        vectors: [n, d], one per good row.
        bad: the rows that the model rejects.
        tokens: of the good rows together.
    """

    rows: Sequence[Row]
    vectors: Vectors
    bad: list[BadRow]
    tokens: int


class Embedder(Protocol):
    """Embeds batches of rows.

    Attributes:
        info: the model's information, as `GET /info` returns it.
        window: how many batches to submit ahead.
    """

    info: dict[str, Any]
    window: int

    def submit(self, rows: Sequence[Row]) -> "Future[EmbeddedRows]":
        """Start a batch. The future may raise `CommandError`."""


def identity(info: dict[str, Any]) -> dict[str, Any]:
    """The part of a model's information that a resumed run must find unchanged."""
    return {name: info.get(name) for name in _IDENTITY}
