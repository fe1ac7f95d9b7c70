"""What only a real device shows, on that of `--device`: memory that runs out, and a device that is lost."""

import ctypes
import resource
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from l2v.app.engine.executor import BatchExecutor
from l2v.app.engine.jobs import Item, Job
from l2v.app.metrics import Metrics
from l2v.models import Encoder, Encoding, load
from l2v.models.warm_up import warm_up
from tests.chaos.server import ChaosServer

_TOKENS, _TEXTS = 256, 128


@contextmanager
def little_memory(device: str, free: int) -> Iterator[None]:
    """Leaves this process `free` bytes of memory beside what it has now."""
    if device == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + free) / total)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
        return
    ctypes.CDLL(None).malloc_trim(0)  # what the C library keeps for later would be more
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + free, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def wide(device: str) -> Encoder:
    """The built-in model, whose hidden states have 256 dimensions."""
    return load("demo", dtype="float32", device=device)


def test_a_batch_that_memory_does_not_hold_is_split(wide: Encoder, device: str) -> None:
    encodings = [Encoding(array("q", [2 + i] * _TOKENS), pooled=_TOKENS) for i in range(_TEXTS)]
    budget, metrics = _TEXTS * _TOKENS, Metrics()
    expected = [vector for encoding in encodings for vector in wide.forward([encoding])]  # takes little memory
    job = Job(encodings)
    executor = BatchExecutor(wide.forward, budget, metrics, lambda: None)
    # The states of one layer in float32; a pass needs several times as much.
    with little_memory(device, free=budget * wide.width * 4):
        executor.run([Item(job, place) for place in range(_TEXTS)])
    assert metrics.registry.get_sample_value("l2v_batches_total", {"outcome": "out_of_memory"})
    assert 2 * _TOKENS <= executor.budget < budget
    np.testing.assert_allclose(job.future.result(0).vectors, expected, atol=1e-4)


def test_the_warm_up_lowers_the_budget_to_the_memory(wide: Encoder, device: str) -> None:
    if device != "cuda":
        pytest.skip("on CPUs the budget follows the speed")
    tokens = _TEXTS * _TOKENS
    with little_memory(device, free=tokens * wide.width * 4):
        assert 2 * _TOKENS <= warm_up(wide, tokens) < tokens
    assert warm_up(wide, tokens) == tokens


def test_a_lost_device_ends_the_service(device: str, pytestconfig: pytest.Config) -> None:
    """With CUDA the device fails an assertion; on a CPU the error is raised."""
    if pytestconfig.getoption("--device") is None:
        pytest.skip("tests/chaos shows this on CPUs")
    with ChaosServer("--device", device) as server:
        server.wait_ready()
        assert server.client.post("/embed", json={"inputs": "a"}).status_code == 200
        server.fail(fatal="lose")
        assert server.client.post("/embed", json={"inputs": "b"}).status_code == 503
        assert server.process.wait(30) == 1
        assert "the device is lost" in server.log
