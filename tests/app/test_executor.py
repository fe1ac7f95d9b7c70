"""Failing forward passes: only the input at fault fails, and the token budget adapts to the memory."""

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
    """Returns the first id of each encoding as its vector, fails as configured, and records the batches.

    Attributes:
        fails: what to raise for a batch with this id.
        not_finite: ids whose vector is NaN.
        memory: number of tokens that fit; larger batches raise torch's out-of-memory error.
        transient_failures: number of forward passes that fail independently of the batch.
        batches: the ids of each forward pass.
    """

    def __init__(self) -> None:
        self.fails: dict[int, Callable[[], Exception]] = {}
        self.not_finite: set[int] = set()
        self.memory = BUDGET
        self.transient_failures = 0
        self.batches: list[list[int]] = []

    def forward(self, encodings: list[Encoding]) -> list[Vectors]:
        ids = [encoding.ids[0] for encoding in encodings]
        self.batches.append(ids)
        if sum(map(len, encodings)) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        if self.transient_failures:
            self.transient_failures -= 1
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
def executor(device: Device, metrics: Metrics) -> BatchExecutor:
    return BatchExecutor(device.forward, BUDGET, metrics, lambda: None)


def job(*ids: int, length: int = 1) -> Job:
    return Job([Encoding(array("q", [id_] * length), pooled=1) for id_ in ids])


def run(executor: BatchExecutor, *jobs: Job) -> None:
    executor.run([Item(one, place) for one in jobs for place in range(len(one.encodings))])


def outcome(one: Job) -> list[float] | tuple[str, int]:
    """The vectors of a finished job, or the message and the position of the encoding at fault."""
    error = one.future.exception(0)
    if error is None:
        return [vector.item() for vector in one.future.result(0).vectors]
    assert isinstance(error, EncodingFailedError)
    return str(error), error.position


def count(metrics: Metrics, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("l2v_batches_total", {"outcome": outcome})


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33, 64])
def test_only_the_input_at_fault_fails_at_any_position(size: int) -> None:
    for faulty in range(size):
        device = Device()
        device.fails[faulty] = lambda: RuntimeError("the secret text")
        jobs = [job(id_) for id_ in range(size)]
        run(BatchExecutor(device.forward, BUDGET, Metrics(), lambda: None), *jobs)
        assert outcome(jobs.pop(faulty)) == ("the model failed on this input", 0)
        assert [outcome(one) for one in jobs] == [[one.encodings[0].ids[0]] for one in jobs]
        assert len(device.batches) <= 2 * size.bit_length() + 1


def test_a_failed_request_names_its_input_and_the_rest_is_not_computed(executor: BatchExecutor, device: Device) -> None:
    device.fails[3] = ValueError
    bulk, other = job(0, 1, 2, 3, 4, 5, 6, 7), job(8, 9)
    run(executor, bulk, other)
    assert outcome(bulk) == ("the model failed on this input", 3)
    assert outcome(other) == [8, 9]
    found = next(number for number, ids in enumerate(device.batches) if ids == [3])
    assert not {4, 5, 6, 7} & {id_ for ids in device.batches[found:] for id_ in ids}


def test_a_transient_failure_fails_no_request(executor: BatchExecutor, device: Device, metrics: Metrics) -> None:
    for jobs in ([job(1, 2, 3), job(4)], [job(5)]):
        device.transient_failures = 1
        run(executor, *jobs)
        assert [outcome(one) for one in jobs] == [[e.ids[0] for e in one.encodings] for one in jobs]
    assert count(metrics, "error") == 2


def test_if_every_input_fails_not_every_input_is_tried(executor: BatchExecutor, device: Device) -> None:
    jobs = [job(id_) for id_ in range(2000)]
    device.memory, device.transient_failures = 10_000, 10_000
    run(executor, *jobs)
    assert all(isinstance(outcome(one), tuple) for one in jobs)
    assert len(device.batches) < 130


def test_the_message_of_an_exception_is_neither_returned_nor_logged(
    executor: BatchExecutor, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    device.fails[1] = lambda: RuntimeError("the secret text")
    with caplog.at_level(logging.DEBUG):
        run(executor, one := job(1))
    assert "secret" not in f"{outcome(one)} {caplog.text}"
    assert "RuntimeError" in str([record.__dict__ for record in caplog.records])


def test_a_vector_that_is_not_finite_is_never_returned(
    executor: BatchExecutor, device: Device, metrics: Metrics
) -> None:
    device.not_finite = {2}
    bad, good = job(1, 2, 3), job(4)
    run(executor, bad, good)
    assert outcome(bad) == ("the model computed NaN or infinity for this input", 1)
    assert outcome(good) == [4]
    assert (count(metrics, "not_finite"), count(metrics, "ok")) == (1, 0)


def test_a_batch_too_large_for_memory_is_split_and_the_budget_lowered(
    executor: BatchExecutor, device: Device, metrics: Metrics
) -> None:
    device.memory = 20
    jobs = [job(id_, length=4) for id_ in range(16)]
    run(executor, *jobs)
    assert [outcome(one) for one in jobs] == [[id_] for id_ in range(16)]
    assert executor.budget == 16
    assert metrics.registry.get_sample_value("l2v_batch_budget_tokens") == 16
    assert count(metrics, "out_of_memory") == 3  # once with 64 tokens and twice with 32
    device.batches.clear()
    run(executor, job(1, 2, 3, 4, length=4))
    assert len(device.batches) == 1


def test_an_input_that_does_not_fit_alone_fails_alone(executor: BatchExecutor, device: Device) -> None:
    device.memory = 8
    large, small = job(1, length=9), job(2)
    run(executor, large, small)
    assert outcome(large) == ("the device does not have enough memory for this input", 0)
    assert outcome(small) == [2]


def test_a_lowered_budget_rises_again_slowly(executor: BatchExecutor, device: Device, metrics: Metrics) -> None:
    device.memory = 20
    run(executor, *[job(id_, length=4) for id_ in range(16)])
    device.memory = BUDGET
    budgets = []
    for _ in range(2100):
        run(executor, job(1))
        budgets.append(executor.budget)
    assert budgets[900] == 16
    assert budgets[1100] == 32
    assert budgets[-1] == BUDGET
    assert metrics.registry.get_sample_value("l2v_batch_budget_tokens") == BUDGET


def test_a_lost_device_is_not_used_again(executor: BatchExecutor, device: Device, metrics: Metrics) -> None:
    device.fails[2] = lambda: torch.AcceleratorError("CUDA error: device-side assert triggered")
    with pytest.raises(DeviceLostError):
        run(executor, job(1), job(2), job(3))
    assert device.batches == [[1, 2, 3]]
    assert count(metrics, "device_lost") == 1


def test_each_forward_pass_sends_a_heartbeat(device: Device, metrics: Metrics) -> None:
    heartbeats: list[int] = []
    device.fails[1] = RuntimeError
    run(BatchExecutor(device.forward, BUDGET, metrics, lambda: heartbeats.append(len(device.batches))), job(0), job(1))
    assert heartbeats == list(range(len(device.batches)))
