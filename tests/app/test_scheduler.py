"""The scheduler with a fake encoder whose forward passes wait at a gate, so that tests control the order of events."""

import queue
import threading
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import CancelledError

import numpy as np
import pytest

from l2v.app.engine.errors import OverloadedError, UnavailableError
from l2v.app.engine.jobs import Result
from l2v.app.engine.scheduler import Scheduler
from l2v.app.engine.vectors import Vectors
from l2v.app.metrics import Metrics
from l2v.models import Encoding
from tests.serving import wait_for

SECONDS = 10


class FakeEncoder:
    """Returns the first id of each encoding as its vector. A forward pass waits until the test releases it."""

    def __init__(self) -> None:
        self.batches: queue.Queue[list[int]] = queue.Queue()
        self.gate = threading.Semaphore(0)
        self.failures: dict[int, BaseException] = {}
        self.nan: set[int] = set()

    def forward(self, encodings: list[Encoding]) -> Vectors:
        names = [encoding.ids[0] for encoding in encodings]
        self.batches.put(names)
        assert self.gate.acquire(timeout=SECONDS)
        for name in names:
            if name in self.failures:
                raise self.failures[name]
        return np.array([[np.nan if name in self.nan else name] for name in names], np.float32)

    def next_batch(self) -> list[int]:
        """Waits for the next batch at the gate."""
        return self.batches.get(timeout=SECONDS)

    def release(self, count: int = 1) -> None:
        self.gate.release(count)


def encodings(*names: int, length: int = 1) -> list[Encoding]:
    return [Encoding(array("q", [name] * length), pooled=1) for name in names]


def ids(result: Result) -> list[float]:
    """The first id of each encoding in the result."""
    return [vector.item() for vector in result.vectors]


def queue_size(metrics: Metrics) -> tuple[float | None, float | None]:
    """The tokens and the inputs that wait, as Prometheus sees them."""
    read = metrics.registry.get_sample_value
    return read("l2v_queue_tokens"), read("l2v_queue_inputs")


@pytest.fixture
def fake() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def scheduler(fake: FakeEncoder, metrics: Metrics) -> Iterator[Scheduler]:
    made = Scheduler(fake.forward, max_batch_tokens=4, max_queue_tokens=20, engine_timeout=SECONDS, metrics=metrics)
    yield made
    fake.release(1000)
    made.close(SECONDS)


def hold(scheduler: Scheduler, fake: FakeEncoder) -> None:
    """Occupies the engine with a batch, so that later jobs are queued."""
    scheduler.submit(encodings(0))
    assert fake.next_batch() == [0]


def test_results_keep_the_order_of_the_inputs(scheduler: Scheduler, fake: FakeEncoder) -> None:
    fake.release(10)
    result = scheduler.submit(encodings(5, 3, 9, 1, 7)).result(SECONDS)
    assert ids(result) == [5, 3, 9, 1, 7]
    assert result.queued >= 0
    assert result.computed > 0


def test_batches_are_those_of_the_queue(scheduler: Scheduler, fake: FakeEncoder) -> None:
    hold(scheduler, fake)
    bulk = scheduler.submit(encodings(10, 11, 12, 13, 14, 15))
    second = scheduler.submit(encodings(20, 21))
    single = scheduler.submit(encodings(30))
    fake.release()
    assert fake.next_batch() == [30, 20, 10, 11]
    fake.release()
    assert fake.next_batch() == [21, 12, 13, 14]
    assert ids(single.result(SECONDS)) == [30]
    assert not bulk.done()
    fake.release(2)
    assert fake.next_batch() == [15]
    assert ids(bulk.result(SECONDS)) == [10, 11, 12, 13, 14, 15]
    assert ids(second.result(SECONDS)) == [20, 21]


def test_an_encoding_that_does_not_fit_starts_the_next_batch(scheduler: Scheduler, fake: FakeEncoder) -> None:
    hold(scheduler, fake)
    scheduler.submit(encodings(1, length=3))
    scheduler.submit(encodings(2, length=2))
    fake.release()
    assert fake.next_batch() == [1]
    fake.release()
    assert fake.next_batch() == [2]


def test_an_encoding_beyond_the_budget_is_a_batch_of_its_own(scheduler: Scheduler, fake: FakeEncoder) -> None:
    fake.release(2)
    assert ids(scheduler.submit(encodings(8, length=9)).result(SECONDS)) == [8]


def test_a_full_queue_raises_an_error_with_retry_after(
    scheduler: Scheduler, fake: FakeEncoder, metrics: Metrics
) -> None:
    hold(scheduler, fake)
    waiting = scheduler.submit(encodings(1, length=20))
    with pytest.raises(OverloadedError) as raised, scheduler.reserve(6):
        pytest.fail("the queue must be full")
    assert raised.value.retry_after >= 1
    assert metrics.registry.get_sample_value("l2v_rejected_total", {"reason": "queue"}) == 1
    assert queue_size(metrics) == (20, 1)
    fake.release(2)
    waiting.result(SECONDS)
    assert scheduler.queue_tokens == 0


def test_retry_after_is_at_most_a_minute(scheduler: Scheduler, fake: FakeEncoder) -> None:
    """The rate of a small, slow forward pass would predict a much longer wait."""
    first = scheduler.submit(encodings(0))
    time.sleep(0.2)
    fake.release()
    first.result(SECONDS)
    wait_for(lambda: scheduler._executor.tokens_per_second > 0)
    with scheduler.reserve(1000), pytest.raises(OverloadedError) as raised:
        scheduler.check_capacity()
    assert raised.value.retry_after == 60


def test_reservations_count_before_tokenization_ends(scheduler: Scheduler) -> None:
    with scheduler.reserve(19), scheduler.reserve(1):
        with pytest.raises(OverloadedError), scheduler.reserve(1):
            pytest.fail("the queue must be full")
        assert scheduler.queue_tokens == 0
    scheduler.check_capacity()


def test_small_requests_do_not_starve_one_larger_than_the_queue(scheduler: Scheduler, fake: FakeEncoder) -> None:
    hold(scheduler, fake)
    small, large = scheduler.submit(encodings(100)), scheduler.submit(encodings(*range(1, 41)))
    with pytest.raises(OverloadedError):
        scheduler.check_capacity()
    fake.release(50)
    assert ids(small.result(SECONDS)) == [100]
    assert len(large.result(SECONDS).vectors) == 40


def test_abandoned_work_is_dropped_before_the_forward(
    scheduler: Scheduler, fake: FakeEncoder, metrics: Metrics
) -> None:
    hold(scheduler, fake)
    gone, stays = scheduler.submit(encodings(1, 2, 3)), scheduler.submit(encodings(4))
    assert gone.cancel()
    fake.release()
    assert fake.next_batch() == [4]
    fake.release()
    stays.result(SECONDS)
    assert queue_size(metrics) == (0, 0)
    with pytest.raises(CancelledError):
        gone.result(SECONDS)


def test_the_rest_of_a_request_abandoned_during_a_batch_is_dropped(scheduler: Scheduler, fake: FakeEncoder) -> None:
    long = scheduler.submit(encodings(1, 2, 3, 4, 5, 6))
    assert fake.next_batch() == [1, 2, 3, 4]
    long.cancel()
    follower = scheduler.submit(encodings(7))
    fake.release()
    assert fake.next_batch() == [7]
    fake.release()
    follower.result(SECONDS)


def test_abandoned_work_does_not_fill_the_queue(scheduler: Scheduler, fake: FakeEncoder) -> None:
    hold(scheduler, fake)
    assert scheduler.submit(encodings(1, length=25)).cancel()
    waiting = scheduler.submit(encodings(2, length=15))
    fake.release(2)
    assert ids(waiting.result(SECONDS)) == [2]


def test_a_dead_engine_leaves_no_future_pending(scheduler: Scheduler, fake: FakeEncoder) -> None:
    hold(scheduler, fake)
    fake.failures[1] = SystemExit()
    dying, waiting = scheduler.submit(encodings(1, 1, 1, 1)), scheduler.submit(encodings(2, length=4))
    fake.release(2)
    for future in (dying, waiting):
        with pytest.raises(UnavailableError):
            future.result(SECONDS)
    scheduler.close(SECONDS)
    assert scheduler.failure == "the engine is down: SystemExit"
    with pytest.raises(UnavailableError):
        scheduler.submit(encodings(3))


def test_a_hanging_forward_pass_fails_all_requests_for_good(fake: FakeEncoder, metrics: Metrics) -> None:
    scheduler = Scheduler(fake.forward, 4, 20, engine_timeout=2, metrics=metrics)
    assert scheduler.failure is None
    hanging = scheduler.submit(encodings(1))
    fake.next_batch()
    waiting = scheduler.submit(encodings(2))
    wait_for(lambda: scheduler.failure)
    assert "engine_timeout" in str(scheduler.failure)
    scheduler.fail_all(str(scheduler.failure))
    for future in (hanging, waiting):
        with pytest.raises(UnavailableError):
            future.result(0)
    fake.release(10)
    scheduler.close(SECONDS)
    assert fake.batches.empty()  # the queued job is not computed
    assert "engine_timeout" in str(scheduler.failure)
    with pytest.raises(UnavailableError):
        scheduler.submit(encodings(3))


def test_an_idle_engine_does_not_count_as_hung(fake: FakeEncoder, metrics: Metrics) -> None:
    """The timeout applies only during a forward pass, so suspending an idle process does no harm."""
    scheduler = Scheduler(fake.forward, 4, 20, engine_timeout=0.1, metrics=metrics)
    assert not threading.Event().wait(0.5)
    assert scheduler.failure is None
    scheduler.close(SECONDS)


def test_close_finishes_queued_jobs_and_rejects_new_ones(scheduler: Scheduler, fake: FakeEncoder) -> None:
    hold(scheduler, fake)
    waiting = scheduler.submit(encodings(1, 2, 3, 4, 5))
    closer = threading.Thread(target=scheduler.close, args=(SECONDS,))
    closer.start()
    fake.release(10)
    closer.join(SECONDS)
    assert ids(waiting.result(0)) == [1, 2, 3, 4, 5]
    with pytest.raises(UnavailableError):
        scheduler.submit(encodings(6))


def test_every_future_is_resolved_once_under_concurrency(metrics: Metrics) -> None:
    """Many threads submit jobs and cancel half of them. No result is lost, swapped or counted twice."""
    scheduler = Scheduler(
        lambda batch: np.array([[e.ids[0]] for e in batch], np.float32), 16, 1_000_000, SECONDS, metrics
    )
    failures: list[object] = []

    def client(number: int) -> None:
        for turn in range(100):
            names = [number * 1000 + turn * 5 + i for i in range(5)]
            future = scheduler.submit(encodings(*names))
            if turn % 2 and future.cancel():
                continue
            if (got := ids(future.result(SECONDS))) != names:
                failures.append((names, got))

    clients = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    scheduler.close(SECONDS)
    assert not failures
    assert queue_size(metrics) == (0, 0)
