"""Runs one batch, and confines failures to the encodings that cause them.

A batch that fails is split in half, and each half runs again, until each encoding at fault runs alone and fails.
If memory has run out, the parts become small enough eventually; the token budget of later batches is reduced as well.
"""

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from l2v.app.engine.jobs import EncodingFailedError, JobBatch
from l2v.app.engine.vectors import Vectors
from l2v.app.metrics import Metrics
from l2v.models import Encoding
from l2v.models.faults import Fault

logger = logging.getLogger(__name__)

Forward = Callable[[list[Encoding]], Sequence[Vectors]]

# After this many errors within one batch, a part that fails is no longer split. This limits the cost of a batch in
# which every input fails; one bad input among two thousand causes about twelve errors.
_MAX_ERRORS = 64
# A reduced budget doubles after this many successful forward passes. If memory does not suffice for the doubled budget,
# only one in this many batches is split again.
_RECOVERY_BATCHES = 1000
# Each pass multiplies the weight of earlier passes in the measured rate by this, so about the last ten passes count.
_DECAY = 0.9

_MESSAGES = {
    Fault.ERROR: "the model failed on this input",
    Fault.OUT_OF_MEMORY: "the device does not have enough memory for this input",
}


class DeviceLostError(Exception):
    """The device accepts no more work from this process."""

    def __init__(self) -> None:
        super().__init__("the device is lost")


class BatchExecutor:
    """Runs batches. Used by the engine thread only.

    Args:
        forward: `Encoder.forward`.
        max_batch_tokens: the token budget of a batch while memory suffices.
        metrics: counts batches.
        heartbeat: a function to call before each forward pass, which shows that the engine is alive.

    Attributes:
        budget: the current token budget of a batch.
        tokens_per_second: the recent rate; 0 before the first pass.
    """

    def __init__(
        self, forward: Forward, max_batch_tokens: int, metrics: Metrics, heartbeat: Callable[[], None]
    ) -> None:
        self._forward = forward
        self._max_batch_tokens = max_batch_tokens
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._tokens = self._seconds = 0.0
        self._set_budget(max_batch_tokens)

    @property
    def tokens_per_second(self) -> float:
        return self._tokens / max(self._seconds, 1e-9)

    def run(self, batch: JobBatch) -> None:
        """Runs a batch, and settles the jobs that it completes or that fail. Raises `DeviceLostError`."""
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
                # In larger batches, an encoding that fails has run at least twice. So this one gets a second attempt.
                parts.append(part)
            else:
                for job, position in part:
                    job.fail(EncodingFailedError(_MESSAGES[fault], position))

    def _attempt(self, batch: JobBatch) -> Fault | None:
        """Runs one forward pass. Returns the kind of failure or None, but not the error, which holds device memory."""
        tokens = sum(len(item.encoding) for item in batch)
        self._heartbeat()
        started = time.monotonic()
        try:
            vectors = self._forward([item.encoding for item in batch])
            seconds = time.monotonic() - started
            self._scatter(batch, vectors, tokens, seconds)
        except Exception as error:
            fault = Fault.of(error)
            logger.error("a batch failed", extra={"error": type(error).__name__, "fault": fault, "tokens": tokens})
        else:
            self._tokens = self._tokens * _DECAY + tokens
            self._seconds = self._seconds * _DECAY + seconds
            self._recover()
            return None
        self._metrics.batches.labels(fault).inc()
        if fault is Fault.OUT_OF_MEMORY:
            torch.cuda.empty_cache()  # cuBLAS and cuDNN cannot use the memory that torch caches
            self._set_budget(min(self.budget, max(1, tokens // 2)))
        return fault

    def _scatter(self, batch: JobBatch, vectors: Sequence[Vectors], tokens: int, seconds: float) -> None:
        for job in {item.job for item in batch}:
            job.computed += seconds
        outcome = "ok"
        for (job, position), vector in zip(batch, vectors, strict=True):
            if np.isfinite(vector).all():
                job.put(position, vector)
            else:
                outcome = "not_finite"
                job.fail(EncodingFailedError("the model computed NaN or infinity for this input", position))
        self._metrics.observe_batch(tokens, len(batch), seconds, outcome)

    def _recover(self) -> None:
        self._successes += 1
        if self._successes >= _RECOVERY_BATCHES and self.budget < self._max_batch_tokens:
            self._set_budget(min(2 * self.budget, self._max_batch_tokens))

    def _set_budget(self, tokens: int) -> None:
        self.budget, self._successes = tokens, 0
        self._metrics.batch_budget.set(tokens)
