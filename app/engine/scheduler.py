"""The queue and the engine thread.

    submit → `JobQueue` → engine thread: take a batch, run it → future

A job holds the encodings of one request. Once its future is settled, for example cancelled, the job leaves the queue.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from l2v.app.engine.capacity import check_capacity
from l2v.app.engine.errors import UnavailableError
from l2v.app.engine.executor import BatchExecutor, DeviceLostError, Forward
from l2v.app.engine.jobs import Job, JobBatch, Result
from l2v.app.engine.queue import JobQueue
from l2v.app.metrics import Metrics
from l2v.models import Encoding

logger = logging.getLogger(__name__)


class Scheduler:
    """Runs `forward` in its own thread, on the batches of a `JobQueue`.

    Args:
        forward: `Encoder.forward`; only the engine thread calls it.
        max_batch_tokens: the token budget of a forward pass; a longer encoding runs alone.
        max_queue_tokens: the number of waiting tokens at which requests are rejected.
        engine_timeout: seconds after which a forward pass counts as hung.
        metrics: counts batches, rejections and the queue.

    Attributes:
        ready: always true; other implementations of `Engine` may become ready later.
    """

    ready = True

    def __init__(
        self, forward: Forward, max_batch_tokens: int, max_queue_tokens: int, engine_timeout: float, metrics: Metrics
    ) -> None:
        self._executor = BatchExecutor(forward, max_batch_tokens, metrics, self._beat)
        self._max_queue_tokens = max_queue_tokens
        self._engine_timeout = engine_timeout
        self._metrics = metrics
        self._queue = queue = JobQueue()
        # The metrics must not refer to the scheduler, which would keep it in memory.
        metrics.queue_tokens.set_function(lambda: queue.tokens)
        metrics.queue_inputs.set_function(lambda: queue.inputs)
        self._running: JobBatch = []
        # Guards the fields below, and is notified when a job arrives or `close` is called. Re-entrant.
        self._changed = threading.Condition()
        self._closing = False
        self._failure: str | None = None
        self._reserved_tokens = 0
        self._beat()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, encodings: Sequence[Encoding]) -> "Future[Result]":
        """Queues the encodings of one request. Cancelling the future drops these encodings.

        The future yields a `Result`, or raises `EncodingFailedError` or `UnavailableError`. This method does not
        check the queue's capacity, since `reserve` has checked it before tokenization.

        Raises:
            UnavailableError: the scheduler is closed, or its engine is down.
        """
        job = Job(encodings)
        with self._changed:
            if self._closing or self.failure:
                raise UnavailableError(self.failure or "the service is shutting down")
            self._queue.add(job)
            job.future.add_done_callback(self._discard)
            self._changed.notify()
        return job.future

    @contextmanager
    def reserve(self, tokens: int) -> Iterator[None]:
        """Reserves queue capacity for an estimated number of tokens during tokenization; raises `OverloadedError`."""
        with self._changed:
            self.check_capacity()
            self._reserved_tokens += tokens
        try:
            yield
        finally:
            with self._changed:
                self._reserved_tokens -= tokens

    def check_capacity(self) -> None:
        """Raises `OverloadedError` if the waiting and reserved tokens have reached the limit."""
        with self._changed:
            tokens, rate = self.queue_tokens + self._reserved_tokens, self.tokens_per_second
        check_capacity(tokens, self._max_queue_tokens, rate, self._metrics)

    @property
    def tokens_per_second(self) -> float:
        """The recent rate; 0 before the first pass."""
        return self._executor.tokens_per_second

    @property
    def queue_tokens(self) -> int:
        """The tokens that wait for a batch."""
        return self._queue.tokens

    @property
    def failure(self) -> str | None:
        """The reason why the engine is down; None if the engine is up."""
        # Check the thread first, since it sets `_failure` before it ends.
        if not self._thread.is_alive():
            return self._failure or "the engine is down"
        if self._failure is not None:
            return self._failure
        if self._running and time.monotonic() - self._heartbeat >= self._engine_timeout:
            return f"the engine is down: a forward pass took more than {self._engine_timeout:g} s (engine_timeout)"
        return None

    def fail_all(self, failure: str) -> None:
        """Fails all jobs after the engine died or hung. It stays down even if the hung forward pass returns later."""
        with self._changed:
            self._failure = failure
            self._settle_all()

    def close(self, timeout: float) -> None:
        """Rejects new jobs, finishes the waiting jobs, and waits up to `timeout` seconds for the thread to end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _discard(self, future: "Future[Result]") -> None:
        with self._changed:
            self._queue.discard(future)

    def _beat(self) -> None:
        """Records that the engine thread is alive."""
        self._heartbeat = time.monotonic()

    def _run(self) -> None:
        """The engine thread. Before this thread ends, it settles every future."""
        try:
            while batch := self._next_batch():
                self._executor.run(batch)
        except BaseException as error:
            # Do not re-raise: Python would print the error's message, which may contain a user's text.
            logger.critical("the engine died", extra={"error": type(error).__name__})
            reason = str(error) if isinstance(error, DeviceLostError) else type(error).__name__
            self._failure = f"the engine is down: {reason}"
        finally:
            with self._changed:
                self._settle_all()

    def _settle_all(self) -> None:
        """Fails all jobs and accepts no more jobs. The caller holds the lock."""
        self._closing = True
        for job in [*self._queue, *(item.job for item in self._running)]:  # a copy: a failed job leaves the queue
            job.fail(UnavailableError(self._failure or "the service is shutting down"))
        self._running = []

    def _next_batch(self) -> JobBatch:
        """Waits for work. Returns an empty batch once the scheduler is closed and the queue is empty."""
        with self._changed:
            while True:
                self._beat()
                self._running = self._queue.take_batch(self._executor.budget)
                if self._running or self._closing:
                    return self._running
                self._changed.wait()
