"""The interface of the two embedders: local (in this process) and remote (through a service)."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.output_types import Numbers
from l2v.models.types import Input

# Inputs per batch; a service gets one request per batch.
_BATCH_SIZE = 256
# The fields of a model's information that must be the same when a run is resumed.
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
        vectors: one vector per good row, [n, d], or [n, d / 8] if packed.
        bad: the rows that the model rejects.
        tokens: the number of tokens in the good rows.
    """

    rows: Sequence[Row]
    vectors: Numbers
    bad: list[BadRow]
    tokens: int


class Embedder(Protocol):
    """Embeds batches of rows.

    Attributes:
        info: the model's information, as `GET /info` returns it.
        window: the number of batches that may be in progress at the same time.
        warning: a caveat about the vectors, known once a batch is done; "" if there is none.
    """

    info: dict[str, Any]
    window: int

    @property
    def warning(self) -> str: ...

    def submit(self, rows: Sequence[Row]) -> "Future[EmbeddedRows]":
        """Start a batch. The future may raise `CommandError`."""


def identity(info: dict[str, Any]) -> dict[str, Any]:
    """The fields of a model's information that must be the same when a run is resumed."""
    return {name: info.get(name) for name in _IDENTITY}


def embed_inputs(embedder: Embedder, inputs: Sequence[Input]) -> Numbers:
    """The vectors of inputs, [n, d] or packed. Raises `CommandError` for an input that cannot be embedded."""
    # Only services have this limit. A service would reject longer texts, so they are cut here.
    max_characters = embedder.info.get("limits", {}).get("max_characters")
    rows = [Row(number, each.text[:max_characters], each.instruction) for number, each in enumerate(inputs, 1)]
    starts = range(0, max(1, len(rows)), _BATCH_SIZE)
    batches = [batch.result() for batch in [embedder.submit(rows[start : start + _BATCH_SIZE]) for start in starts]]
    if bad := next((row for batch in batches for row in batch.bad), None):
        raise CommandError(f"a text cannot be embedded: {bad.reason}")
    return np.concatenate([batch.vectors for batch in batches])
