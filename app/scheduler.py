"""The queue and the one engine thread; owns every future.

    submit → waiting jobs → engine thread: fill a batch, forward, scatter → future

A job is one request's encodings. Each batch takes from the waiting jobs in turn, one encoding of each, first come
first served inside a job, until the token budget is full. So a request of two thousand texts shares every batch with
those that came after it. A job whose future was cancelled is dropped before the next forward.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.errors import InternalError, OverloadedError, UnavailableError
from app.telemetry import Metrics
from models import Encoding

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Forward = Callable[[list[Encoding]], Sequence[Vectors]]

# How often an idle engine thread shows that it lives.
_HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a job's future gives.

    Attributes:
        vectors: one float32 array an encoding, in their order, as `Encoder.forward` gives them.
        queued: seconds until the first encoding was taken.
        computed: seconds of the forward passes that the job took part in.
    """

    vectors: list[Vectors]
    queued: float
    computed: float


@dataclass(slots=True, eq=False)
class Job:
    """One request in the queue. Filled by the engine thread alone once it is submitted."""

    encodings: Sequence[Encoding]
    submitted: float
    future: "Future[Result]" = field(default_factory=Future)
    vectors: list[Vectors] = field(default_factory=list)
    taken: int = 0
    queued: float = 0.0
    computed: float = 0.0

    @property
    def waiting_tokens(self) -> int:
        return sum(map(len, self.encodings[self.taken :]))


Batch = list[tuple[Job, Encoding]]


class Scheduler:
    """Runs `forward` in a thread of its own over batches filled from all waiting jobs.

    Args:
        forward: `Encoder.forward`; called from the engine thread only.
        max_batch_tokens: the budget of one forward pass; a single longer encoding still goes, alone.
        max_queue_tokens: what may wait; a job beyond it is refused unless the queue is empty.
        metrics: where batches and refusals are counted.
    """

    def __init__(self, forward: Forward, max_batch_tokens: int, max_queue_tokens: int, metrics: Metrics) -> None:
        self._forward = forward
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._heartbeat = time.monotonic()
        self._tokens_per_second = 0.0
        self.queue_tokens = 0
        self.queue_inputs = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, encodings: Sequence[Encoding]) -> "Future[Result]":
        """Queues the encodings of one request; cancelling the future gives them up.

        Raises:
            OverloadedError: if too many tokens are waiting.
            UnavailableError: if the scheduler is closed or its thread has died.
        """
        job = Job(encodings, time.monotonic())
        tokens = job.waiting_tokens
        with self._changed:
            if self._closing or not self._thread.is_alive():
                raise UnavailableError("the service is shutting down or its engine is down")
            if self.queue_tokens and self.queue_tokens + tokens > self._max_queue_tokens:
                self._metrics.rejected.labels("queue").inc()
                raise OverloadedError(
                    f"{self.queue_tokens} tokens are waiting, at most {self._max_queue_tokens} may (max_queue_tokens)",
                    self._seconds_to_drain(),
                )
            self._jobs.append(job)
            self.queue_tokens += tokens
            self.queue_inputs += len(encodings)
            self._changed.notify()
        return job.future

    def alive(self, timeout: float) -> bool:
        """Whether the engine thread runs and has shown so within `timeout` seconds."""
        return self._thread.is_alive() and time.monotonic() - self._heartbeat < timeout

    def close(self, timeout: float | None = None) -> None:
        """Refuses new jobs, finishes those that wait, and joins the thread for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _seconds_to_drain(self) -> int:
        return max(1, math.ceil(self.queue_tokens / self._tokens_per_second)) if self._tokens_per_second else 1

    def _run(self) -> None:
        """The engine thread: never ends with a future unresolved."""
        batch: Batch = []
        try:
            while batch := self._next_batch():
                self._process(batch)
        except BaseException as error:
            # Not raised again: Python would print it with its message, which may quote a text.
            logger.critical("the engine died", extra={"error": type(error).__name__})
        finally:
            with self._changed:
                self._closing = True
                for job in [*self._jobs, *(job for job, _ in batch)]:
                    _fail(job, UnavailableError("the engine is down"))
                self._jobs.clear()
                self.queue_tokens = self.queue_inputs = 0

    def _next_batch(self) -> Batch:
        """Waits for work; an empty batch means that the scheduler is closed and the queue empty."""
        with self._changed:
            while True:
                self._heartbeat = time.monotonic()
                if batch := self._fill():
                    return batch
                if self._closing:
                    return []
                self._changed.wait(_HEARTBEAT_SECONDS)

    def _fill(self) -> Batch:
        """Takes one encoding from each waiting job in turn until the next would go beyond the budget."""
        batch: Batch = []
        room = self._max_batch_tokens
        while self._jobs:
            job = self._jobs[0]
            if job.future.done():
                self._leave(job.waiting_tokens, len(job.encodings) - job.taken)
                self._jobs.popleft()
                continue
            encoding = job.encodings[job.taken]
            length = len(encoding)
            if batch and length > room:
                break
            if job.taken == 0:
                job.queued = time.monotonic() - job.submitted
            batch.append((job, encoding))
            room -= length
            job.taken += 1
            self._leave(length, 1)
            self._jobs.popleft()
            if job.taken < len(job.encodings):
                self._jobs.append(job)
        return batch

    def _leave(self, tokens: int, inputs: int) -> None:
        self.queue_tokens -= tokens
        self.queue_inputs -= inputs

    def _process(self, batch: Batch) -> None:
        """Runs one batch; whatever fails in it fails its own jobs and nothing else."""
        encodings = [encoding for _, encoding in batch]
        tokens = sum(map(len, encodings))
        started = time.monotonic()
        try:
            vectors = self._forward(encodings)
            seconds = time.monotonic() - started
            self._tokens_per_second = tokens / max(seconds, 1e-9)
            self._metrics.observe_batch(tokens, len(encodings))
            for job in {job for job, _ in batch}:
                job.computed += seconds
            self._scatter(batch, vectors)
        except Exception as error:
            logger.error("a batch failed", extra={"error": type(error).__name__, "tokens": tokens})
            self._metrics.batches.labels("error").inc()
            for job, _ in batch:
                _fail(job, InternalError("the batch failed"))

    def _scatter(self, batch: Batch, vectors: Sequence[Vectors]) -> None:
        for (job, _), vector in zip(batch, vectors, strict=True):
            if not np.isfinite(vector).all():
                _fail(job, InternalError("the model computed no finite vector"))
                continue
            # Encodings are taken in their order, so their vectors come in it too.
            job.vectors.append(vector)
            if len(job.vectors) == len(job.encodings) and _claim(job):
                job.future.set_result(Result(job.vectors, job.queued, job.computed))


def _claim(job: Job) -> bool:
    """Whether the job still waits for its outcome; from then on it cannot be cancelled any more."""
    return not job.future.done() and job.future.set_running_or_notify_cancel()


def _fail(job: Job, error: Exception) -> None:
    if _claim(job):
        job.future.set_exception(error)
