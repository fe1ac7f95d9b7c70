"""The queue and the one engine thread; owns every future.

    submit → waiting jobs → engine thread: fill a batch, run it → future

A job is one request's encodings. Each batch takes from the waiting jobs in turn, one encoding of each, first come
first served inside a job, until the token budget is full. So a request of two thousand texts shares every batch with
those that came after it, and where they end with that batch, it takes a part of it only. A job whose future was
cancelled is dropped before the next forward.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from l2v.app.engine.executor import DeviceLostError, Forward, Runner
from l2v.app.engine.jobs import Batch, Job, Result
from l2v.app.http.errors import OverloadedError, UnavailableError
from l2v.app.http.telemetry import Metrics
from l2v.models import Encoding

logger = logging.getLogger(__name__)

# The part of the token budget at which a batch is about as fast, for each token, as a full one.
_LARGE_ENOUGH = 0.25
# What a refused client is asked to wait, at most: a rate is a guess, and others may give up meanwhile.
_LONGEST_WAIT = 60


class Scheduler:
    """Runs `forward` in a thread of its own over batches filled from all waiting jobs.

    Args:
        forward: `Encoder.forward`; called from the engine thread only.
        max_batch_tokens: the budget of one forward pass; a single longer encoding still goes, alone.
        max_queue_tokens: once so many wait, jobs are refused.
        engine_timeout: seconds of one forward pass after which the engine counts as hung.
        metrics: where batches and refusals are counted.
    """

    def __init__(
        self, forward: Forward, max_batch_tokens: int, max_queue_tokens: int, engine_timeout: float, metrics: Metrics
    ) -> None:
        self._runner = Runner(forward, max_batch_tokens, metrics, self._beat)
        self._max_queue_tokens = max_queue_tokens
        self._engine_timeout = engine_timeout
        self._metrics = metrics
        self._jobs: deque[Job] = deque()
        self._running: Batch = []
        self._changed = threading.Condition()
        self._closing = False
        self._failure: str | None = None
        self.queue_tokens = 0
        self.queue_inputs = 0
        self._expected = 0
        # Whether a job may wait that is settled, by a cancel or by the failure of a part of it.
        self._abandoned = False
        self._beat()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, encodings: Sequence[Encoding]) -> "Future[Result]":
        """Queues the encodings of one request; cancelling the future gives them up.

        The future gives a `Result`, or raises `EncodingFailedError` or `UnavailableError`. How much may wait is said by
        `expect`, before the work of making encodings; whoever comes this far is not refused any more.

        Raises:
            UnavailableError: if the scheduler is closed or its engine is down.
        """
        job = Job(encodings)
        tokens = job.waiting_tokens
        with self._changed:
            if self._closing or self.failure:
                raise UnavailableError(self.failure or "the service is shutting down")
            job.future.add_done_callback(self._settled)
            self._jobs.append(job)
            self.queue_tokens += tokens
            self.queue_inputs += len(encodings)
            self._changed.notify()
        return job.future

    @contextmanager
    def expect(self, tokens: int) -> Iterator[None]:
        """Keeps room for about so many tokens while their encodings are made; raises as `check_room` does."""
        with self._changed:
            self.check_room()
            self._expected += tokens
        try:
            yield
        finally:
            with self._changed:
                self._expected -= tokens

    def check_room(self) -> None:
        """Raises `OverloadedError` once as many tokens wait, or are expected, as may.

        A job may go beyond that. Would each have to fit, small ones would keep a large one out for ever.
        """
        with self._changed:
            if self.queue_tokens + self._expected >= self._max_queue_tokens:
                self._drop_abandoned()
            if (tokens := self.queue_tokens + self._expected) >= self._max_queue_tokens:
                self._metrics.rejected.labels("queue").inc()
                raise OverloadedError(
                    f"{tokens} tokens are waiting, at most {self._max_queue_tokens} may (max_queue_tokens)",
                    self._seconds_to_drain(),
                )

    @property
    def failure(self) -> str | None:
        """Why the engine is down, in a sentence; None while it works."""
        if self._failure is None and self._thread.is_alive():
            if not self._running or time.monotonic() - self._heartbeat < self._engine_timeout:
                return None
            return f"the engine is down: a forward pass took more than {self._engine_timeout:g} s (engine_timeout)"
        return self._failure or "the engine is down"

    def give_up(self, failure: str) -> None:
        """For an engine that is down, by its death or by a forward pass that hangs: nothing that waits goes on waiting.

        From then on it stays down, even should the forward pass come back.
        """
        with self._changed:
            self._failure = failure
            self._end()

    def close(self, timeout: float | None = None) -> None:
        """Refuses new jobs, finishes those that wait, and joins the thread for at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _beat(self) -> None:
        self._heartbeat = time.monotonic()

    def _seconds_to_drain(self) -> int:
        rate = self._runner.tokens_per_second
        tokens = self.queue_tokens + self._expected
        return min(_LONGEST_WAIT, max(1, math.ceil(tokens / rate))) if rate else 1

    def _run(self) -> None:
        """The engine thread: never ends with a future unresolved."""
        try:
            while batch := self._next_batch():
                self._runner.run(batch)
        except BaseException as error:
            # Not raised again: Python would print it with its message, which may quote a text.
            logger.critical("the engine died", extra={"error": type(error).__name__})
            self._failure = (
                f"the engine is down: {error if isinstance(error, DeviceLostError) else type(error).__name__}"
            )
        finally:
            with self._changed:
                self._end()

    def _end(self) -> None:
        """Settles all jobs and takes no more; the lock is held."""
        self._closing = True
        for job in [*self._jobs, *(item.job for item in self._running)]:
            job.fail(UnavailableError(self._failure or "the service is shutting down"))
        self._jobs.clear()
        self._running = []
        self.queue_tokens = self.queue_inputs = 0

    def _next_batch(self) -> Batch:
        """Waits for work; an empty batch means that the scheduler is closed and the queue empty."""
        with self._changed:
            while True:
                self._beat()
                self._drop_abandoned()
                if batch := self._fill():
                    self._running = batch
                    return batch
                if self._closing:
                    return []
                self._running = []
                self._changed.wait()

    def _settled(self, future: "Future[Result]") -> None:
        """In whichever thread settles it, so without the lock."""
        if future.cancelled() or future.exception():
            self._abandoned = True

    def _drop_abandoned(self) -> None:
        if not self._abandoned:
            return
        self._abandoned = False
        kept: deque[Job] = deque()
        for job in self._jobs:
            if job.settled:
                self._leave(job.waiting_tokens, job.waiting_inputs)
            else:
                kept.append(job)
        self._jobs = kept

    def _fill(self) -> Batch:
        """Takes one encoding from each waiting job in turn until the next would go beyond the budget.

        Where some jobs end with the batch and others do not, those that do not are passed over once it is large enough:
        who is to be answered now would only wait for them.
        """
        batch: Batch = []
        passed: list[Job] = []
        room = budget = self._runner.budget
        ends = False
        while self._jobs:
            job = self._jobs[0]
            length = len(job.encodings[job.taken])
            if batch and length > room:
                break
            self._jobs.popleft()
            if ends and budget - room >= budget * _LARGE_ENOUGH and job.waiting_tokens > room:
                passed.append(job)
                continue
            batch.append(job.take())
            room -= length
            self._leave(length, 1)
            if job.waiting_inputs:
                self._jobs.append(job)
            else:
                ends = True
        self._jobs.extendleft(reversed(passed))
        return batch

    def _leave(self, tokens: int, inputs: int) -> None:
        self.queue_tokens -= tokens
        self.queue_inputs -= inputs
