"""The engine of this process: the encoder itself."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np

from l2v.app.bulk.engines import Embedded, Options
from l2v.app.bulk.errors import BulkError, UsageError
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.jobs import Vectors
from l2v.app.engine.vectors import finish
from l2v.models import Encoder, Encoding, Input, InputError
from l2v.models.batch import batches
from l2v.models.errors import first_line
from l2v.models.faults import Fault

# One batch is tokenised while another is in the model.
_THREADS = 2


class Stopped(Exception):  # noqa: N818 - no error
    """The run was given up between two forward passes."""


class LocalEngine:
    """Runs batches in packs of at most `max_batch_tokens`."""

    window = _THREADS + 1

    def __init__(self, encoder: Encoder, model: str, options: Options, max_batch_tokens: int) -> None:
        if options.dimensions and options.dimensions > encoder.dimensions:
            raise UsageError(f"--dimensions: the model has {encoder.dimensions}")
        self.info = {"model": model, **encoder.describe()}
        self._encoder, self._options, self._budget = encoder, options, max_batch_tokens
        self._model_is_free = threading.Lock()
        self._stopped = threading.Event()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="embed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        # Who interrupts is not to wait for a forward pass: nothing depends on its outcome.
        self._threads.shutdown(wait=kind is not KeyboardInterrupt, cancel_futures=True)

    def submit(self, rows: Sequence[Row]) -> "Future[Embedded]":
        return self._threads.submit(self._embed, rows)

    def _embed(self, rows: Sequence[Row]) -> Embedded:
        rows, encodings, bad = self._tokenized(rows)
        vectors = np.zeros((len(rows), self._encoder.dimensions), np.float32)
        with self._model_is_free:
            start = 0
            for pack in batches(encodings, self._budget):
                if self._stopped.is_set():
                    raise Stopped
                vectors[start : start + len(pack)] = self._forward(pack)
                start += len(pack)
        finite = [bool(np.isfinite(vector).all()) for vector in vectors]
        bad += [
            row.bad("gives a vector that is not finite") for row, fine in zip(rows, finite, strict=True) if not fine
        ]
        tokens = sum(len(encoding) for encoding, fine in zip(encodings, finite, strict=True) if fine)
        good = [row for row, fine in zip(rows, finite, strict=True) if fine]
        return Embedded(good, finish(vectors[finite], self._options.dimensions, self._options.normalize), bad, tokens)

    def _forward(self, pack: list[Encoding]) -> list[Vectors]:
        try:
            return self._encoder.forward(pack)
        except Exception as error:
            tokens = sum(map(len, pack))
            if Fault.of(error) is Fault.OUT_OF_MEMORY:
                raise BulkError(f"{tokens} tokens do not fit into memory: lower --max-batch-tokens") from None
            raise BulkError(f"the model fails on a batch of {tokens} tokens: {first_line(error)}") from error

    def _tokenized(self, rows: Sequence[Row]) -> tuple[list[Row], list[Encoding], list[BadRow]]:
        """The rows that the model can take, as token ids, and those that it cannot."""
        good, bad = list(rows), list[BadRow]()
        default = self._options.instruction or ""
        while True:
            try:
                inputs = [Input(row.text, default if row.instruction is None else row.instruction) for row in good]
                return good, self._encoder.tokenize(inputs) if good else [], bad
            except InputError as error:
                if error.field == "instruction" and good[error.index].instruction is None:
                    raise BulkError(f"--instruction: {error}") from None
                bad.append(good.pop(error.index).bad(str(error)))
