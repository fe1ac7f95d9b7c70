"""What turns rows into vectors, here or elsewhere."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.jobs import Vectors

# What makes a model another one, of all that it says of itself.
_IDENTITY = (
    "model",
    "base",
    "dimensions",
    "pooling",
    "template",
    "max_length",
    "doc_max_length",
    "skip_instruction",
    "dtype",
    "sources",
)


@dataclass(frozen=True, slots=True)
class Options:
    """How rows are embedded.

    Attributes:
        instruction: for rows without their own.
        prompt_name: a prompt of the server's, in its place.
        dimensions: how many of each vector are kept; None for all.
        normalize: whether vectors are scaled to length 1.
    """

    instruction: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool = True


@dataclass(frozen=True, slots=True)
class Embedded:
    """Rows that are done.

    Attributes:
        rows: the good ones, in order.
        vectors: [n, d], one for each of them.
        bad: those that the model cannot take.
        tokens: of the good ones together.
    """

    rows: Sequence[Row]
    vectors: Vectors
    bad: list[BadRow]
    tokens: int


class Engine(Protocol):
    """Where rows are embedded.

    Attributes:
        info: what the model says of itself.
        window: how many batches it works at or keeps ready at a time.
    """

    info: dict[str, Any]
    window: int

    def submit(self, rows: Sequence[Row]) -> "Future[Embedded]":
        """Begins a batch; its future raises `BulkError`."""


def identity(info: dict[str, Any]) -> dict[str, Any]:
    """What of a model's information a resumed run must find again."""
    return {name: info.get(name) for name in _IDENTITY}
