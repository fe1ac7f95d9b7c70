"""How many tokens a forward pass takes where nobody says it."""

import torch

from models import Encoder
from models.batch import token_budget


def test_a_slow_cpu_takes_fewer() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert (token_budget(cpu), token_budget(cuda)) == (4096, 16384)
    assert [token_budget(cpu, rate) for rate in (1e5, 165, 30)] == [4096, 1650, 512]
    assert token_budget(cuda, 5000) == 16384


def test_the_rate_is_that_of_a_forward_pass(encoder: Encoder) -> None:
    encoder.warm_up(16)
    assert 100 < encoder.warm_up(128) < 1e7
