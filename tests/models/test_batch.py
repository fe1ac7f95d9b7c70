"""The default token budget of a forward pass."""

import time
from dataclasses import dataclass

import torch

from l2v.models import Encoder, Encoding
from l2v.models.batch import token_budget
from l2v.models.warm_up import warm_up


def test_a_slow_cpu_gets_a_lower_budget() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert (token_budget(cpu), token_budget(cuda)) == (4096, 16384)
    assert [token_budget(cpu, rate) for rate in (1e5, 165, 30)] == [4096, 1650, 512]
    assert token_budget(cuda, 5000) == 16384


@dataclass(frozen=True)
class SlowEncoder(Encoder):
    """The tiny encoder, limited to 256 tokens per second."""

    def forward(self, encodings: list[Encoding]):  # type: ignore[no-untyped-def]
        time.sleep(sum(map(len, encodings)) / 256)
        return super().forward(encodings)


def test_the_budget_follows_the_measured_speed(encoder: Encoder) -> None:
    slow = SlowEncoder(**{name: getattr(encoder, name) for name in Encoder.__dataclass_fields__})
    assert 512 <= warm_up(slow) <= 2560
    assert warm_up(slow, 64) == 64
