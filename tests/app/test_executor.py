"""What a failing forward pass does to its batch: the guilty fail, nobody else does, and memory is respected."""

import logging
from array import array
from collections.abc import Callable

import numpy as np
import pytest
import torch

from l2v.app.engine.executor import BatchExecutor, DeviceLostError
from l2v.app.engine.jobs import EncodingFailedError, Item, Job
from l2v.app.engine.vectors import Vectors
from l2v.app.metrics import Metrics
from l2v.models import Encoding

BUDGET = 64


class Device:
    """Computes the first id of each encoding; fails as it is told, and counts what it is asked.

    Attributes:
        fails: what to raise for a batch that holds such an id.
        not_finite: ids that come out as NaN.
        memory: how many tokens fit; more raise what torch raises.
        stumbles: how many forward passes fail for no reason in the batch.
        batches: the ids of each forward pass.
    """

    def __init__(self) -> None:
        self.fails: dict[int, Callable[[], Exception]] = {}
        self.not_finite: set[int] = set()
        self.memory = BUDGET
        self.stumbles = 0
        self.batches: list[list[int]] = []

    def forward(self, encodings: list[Encoding]) -> list[Vectors]:
        ids = [encoding.ids[0] for encoding in encodings]
        self.batches.append(ids)
        if sum(map(len, encodings)) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        if self.stumbles:
            self.stumbles -= 1
            raise RuntimeError("the secret text")
        for id_ in ids:
            if id_ in self.fails:
                raise self.fails[id_]()
        return [np.array([np.nan if id_ in self.not_finite else id_], np.float32) for id_ in ids]


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def runner(device: Device, metrics: Metrics) -> BatchExecutor:
    return BatchExecutor(device.forward, BUDGET, metrics, lambda: None)


def job(*ids: int, length: int = 1) -> Job:
    return Job([Encoding(array("q", [id_] * length), pooled=1) for id_ in ids])


def run(runner: BatchExecutor, *jobs: Job) -> None:
    runner.run([Item(one, place) for one in jobs for place in range(len(one.encodings))])


def outcome(one: Job) -> list[float] | tuple[str, int]:
    """What a settled job gives: its vectors, or what is said of which of its encodings."""
    error = one.future.exception(0)
    if error is None:
        return [vector.item() for vector in one.future.result(0).vectors]
    assert isinstance(error, EncodingFailedError)
    return str(error), error.position


def count(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("l2v_batches_total", {"outcome": outcome})


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33, 64])
def test_only_the_guilty_fails_wherever_it_stands(size: int) -> None:
    for guilty in range(size):
        device = Device()
        device.fails[guilty] = lambda: RuntimeError("the secret text")
        jobs = [job(id_) for id_ in range(size)]
        run(BatchExecutor(device.forward, BUDGET, Metrics(), lambda: None), *jobs)
        assert outcome(jobs.pop(guilty)) == ("the model failed on this input", 0)
        assert [outcome(one) for one in jobs] == [[one.encodings[0].ids[0]] for one in jobs]
        assert len(device.batches) <= 2 * size.bit_length() + 1


def test_a_request_with_a_guilty_input_learns_which_and_its_rest_is_not_computed(
    runner: BatchExecutor, device: Device
) -> None:
    device.fails[3] = ValueError
    bulk, beside = job(0, 1, 2, 3, 4, 5, 6, 7), job(8, 9)
    run(runner, bulk, beside)
    assert outcome(bulk) == ("the model failed on this input", 3)
    assert outcome(beside) == [8, 9]
    found = next(number for number, ids in enumerate(device.batches) if ids == [3])
    assert not {4, 5, 6, 7} & {id_ for ids in device.batches[found:] for id_ in ids}


def test_a_failure_that_does_not_come_again_harms_nobody(
    runner: BatchExecutor, device: Device, metrics: Metrics
) -> None:
    for jobs in ([job(1, 2, 3), job(4)], [job(5)]):
        device.stumbles = 1
        run(runner, *jobs)
        assert [outcome(one) for one in jobs] == [[e.ids[0] for e in one.encodings] for one in jobs]
    assert count(metrics, "error") == 2


def test_where_every_input_fails_not_each_is_asked_for(runner: BatchExecutor, device: Device) -> None:
    jobs = [job(id_) for id_ in range(2000)]
    device.memory, device.stumbles = 10_000, 10_000
    run(runner, *jobs)
    assert all(isinstance(outcome(one), tuple) for one in jobs)
    assert len(device.batches) < 130


def test_no_text_of_an_error_is_told_or_logged(
    runner: BatchExecutor, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.fails[1] = lambda: RuntimeError("the secret text")
    with caplog.at_level(logging.DEBUG):
        run(runner, one := job(1))
    assert "secret" not in f"{outcome(one)} {caplog.text}"
    assert "RuntimeError" in str([record.__dict__ for record in caplog.records])


def test_a_vector_that_is_not_finite_never_leaves(runner: BatchExecutor, device: Device, metrics: Metrics) -> None:
    device.not_finite = {2}
    bad, good = job(1, 2, 3), job(4)
    run(runner, bad, good)
    assert outcome(bad) == ("the model computed NaN or infinity for this input", 1)
    assert outcome(good) == [4]
    assert (count(metrics, "not_finite"), count(metrics, "ok")) == (1, 0)


def test_a_batch_too_large_for_memory_is_computed_in_parts_and_the_next_are_smaller(
    runner: BatchExecutor, device: Device, metrics: Metrics
) -> None:
    device.memory = 20
    jobs = [job(id_, length=4) for id_ in range(16)]
    run(runner, *jobs)
    assert [outcome(one) for one in jobs] == [[id_] for id_ in range(16)]
    assert runner.budget == 16
    assert metrics.registry.get_sample_value("l2v_batch_budget_tokens") == 16
    assert count(metrics, "out_of_memory") == 3  # of 64 tokens and twice of 32
    device.batches.clear()
    run(runner, job(1, 2, 3, 4, length=4))
    assert len(device.batches) == 1


def test_an_input_that_does_not_fit_alone_fails_alone(runner: BatchExecutor, device: Device) -> None:
    device.memory = 8
    large, small = job(1, length=9), job(2)
    run(runner, large, small)
    assert outcome(large) == ("the device has not enough memory for this input", 0)
    assert outcome(small) == [2]


def test_a_lowered_budget_comes_back_slowly(runner: BatchExecutor, device: Device, metrics: Metrics) -> None:
    device.memory = 20
    run(runner, *[job(id_, length=4) for id_ in range(16)])
    device.memory = BUDGET
    budgets = []
    for _ in range(2100):
        run(runner, job(1))
        budgets.append(runner.budget)
    assert budgets[900] == 16
    assert budgets[1100] == 32
    assert budgets[-1] == BUDGET
    assert metrics.registry.get_sample_value("l2v_batch_budget_tokens") == BUDGET


def test_a_lost_device_is_not_asked_again(runner: BatchExecutor, device: Device, metrics: Metrics) -> None:
    device.fails[2] = lambda: torch.AcceleratorError("CUDA error: device-side assert triggered")
    with pytest.raises(DeviceLostError):
        run(runner, job(1), job(2), job(3))
    assert device.batches == [[1, 2, 3]]
    assert count(metrics, "device_lost") == 1


def test_each_forward_pass_is_a_sign_of_life(device: Device, metrics: Metrics) -> None:
    beats: list[int] = []
    device.fails[1] = RuntimeError
    run(BatchExecutor(device.forward, BUDGET, metrics, lambda: beats.append(len(device.batches))), job(0), job(1))
    assert beats == list(range(len(device.batches)))
