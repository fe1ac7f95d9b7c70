"""Running one batch: a forward pass, and what to do where it fails.

A batch that fails is halved, and each half run again, until the guilty encodings stand alone and fail alone. Where
memory runs out, the halves fit sooner or later; the token budget of the batches to come is then lowered as well.
"""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from l2v.app.engine.jobs import Batch, EncodingFailedError, Vectors, tokens_of
from l2v.app.http.telemetry import Metrics
from l2v.models import Encoding
from l2v.models.faults import Fault

logger = logging.getLogger(__name__)

Forward = Callable[[list[Encoding]], Sequence[Vectors]]

# Errors within one batch after which the rest of it fails too. Where every input fails, not each is asked alone; one
# guilty input among two thousand takes twelve.
_MAX_ERRORS = 64
# Good batches in a row until a lowered budget is doubled again: should memory still not suffice, one batch in so many
# is computed twice.
_RECOVERY_BATCHES = 1000
# What each forward pass leaves of those before it in the rate: some ten of them count.
_KEPT = 0.9

_MESSAGES = {
    Fault.ERROR: "the model failed on this input",
    Fault.OUT_OF_MEMORY: "the device has not enough memory for this input",
}


class DeviceLostError(Exception):
    """The device takes no more work from this process."""

    def __init__(self) -> None:
        super().__init__("the device is lost")


class Runner:
    """Runs batches, in the engine thread alone.

    Args:
        forward: `Encoder.forward`.
        max_batch_tokens: the budget of a batch while memory suffices.
        metrics: where batches are counted.
        beat: called before each forward pass, as a sign of life.

    Attributes:
        budget: how many tokens the next batch may have.
        tokens_per_second: of the last passes, the later the more; 0 before the first.
    """

    def __init__(self, forward: Forward, max_batch_tokens: int, metrics: Metrics, beat: Callable[[], None]) -> None:
        self._forward = forward
        self._max_batch_tokens = max_batch_tokens
        self._metrics = metrics
        self._beat = beat
        self._good = 0
        self._tokens = self._seconds = 0.0
        self._set_budget(max_batch_tokens)

    @property
    def tokens_per_second(self) -> float:
        return self._tokens / max(self._seconds, 1e-9)

    def run(self, batch: Batch) -> None:
        """Settles what the batch can settle of its jobs; raises `DeviceLostError` where the device is gone."""
        parts, errors = [batch], 0
        while parts:
            part = [item for item in parts.pop() if not item.job.settled]
            fault = self._attempt(part) if part else None
            if fault is None:
                continue
            if fault is Fault.DEVICE_LOST:
                raise DeviceLostError
            errors += fault is Fault.ERROR
            half = len(part) // 2
            if half and errors < _MAX_ERRORS:
                parts += [part[half:], part[:half]]
            elif len(batch) == 1 and errors == 1:
                # It has failed once and had no second run in a half, as the others do.
                parts.append(part)
            else:
                for job, place in part:
                    job.fail(EncodingFailedError(_MESSAGES[fault], place))

    def _attempt(self, batch: Batch) -> Fault | None:
        """One forward pass. Gives back the kind of its failure, not the error: that holds the device's memory."""
        tokens = tokens_of(batch)
        self._beat()
        started = time.monotonic()
        try:
            vectors = self._forward([item.encoding for item in batch])
            seconds = time.monotonic() - started
            self._scatter(batch, vectors, tokens, seconds)
        except Exception as error:
            fault = Fault.of(error)
            logger.error("a batch failed", extra={"error": type(error).__name__, "fault": fault, "tokens": tokens})
        else:
            self._tokens = self._tokens * _KEPT + tokens
            self._seconds = self._seconds * _KEPT + seconds
            self._recover()
            return None
        self._metrics.batches.labels(fault).inc()
        if fault is Fault.OUT_OF_MEMORY:
            self._set_budget(min(self.budget, max(1, tokens // 2)))
        return fault

    def _scatter(self, batch: Batch, vectors: Sequence[Vectors], tokens: int, seconds: float) -> None:
        for job in {item.job for item in batch}:
            job.computed += seconds
        finite = True
        for (job, place), vector in zip(batch, vectors, strict=True):
            if np.isfinite(vector).all():
                job.put(place, vector)
            else:
                finite = False
                job.fail(EncodingFailedError("the model computed no finite vector for this input", place))
        self._metrics.observe_batch(tokens, len(batch), seconds, "ok" if finite else "not_finite")

    def _recover(self) -> None:
        self._good += 1
        if self._good >= _RECOVERY_BATCHES and self.budget < self._max_batch_tokens:
            self._set_budget(min(2 * self.budget, self._max_batch_tokens))

    def _set_budget(self, tokens: int) -> None:
        self.budget, self._good = tokens, 0
        self._metrics.batch_budget.set(tokens)
