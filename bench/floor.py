"""A lower bound on the time of a forward pass: its FLOPs over the rate of plain matrix products on this machine."""

import time
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from transformers import PreTrainedConfig

# Copies of each weight. Going through them in turn, a weight has left the cache before it is used again.
_COPIES = 3


def useful_flops(config: PreTrainedConfig, lengths: Sequence[int]) -> float:
    """FLOPs that sequences of these lengths need: 2 per weight and token, plus bidirectional attention."""
    tokens = sum(lengths)
    weights = sum(rows * columns for rows, columns in _linears(config)) * config.num_hidden_layers
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * head * sum(n * n for n in lengths)
    return 2.0 * weights * tokens + attention


def matmul_rate(config: PreTrainedConfig, tokens: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of `torch.nn.functional.linear` over the linear layers of a decoder layer, with `tokens` rows."""
    random = partial(torch.randn, dtype=dtype, device=device)
    products = [
        [(random(tokens, columns), random(rows, columns)) for rows, columns in _linears(config)] for _ in range(_COPIES)
    ]
    _run(products)
    rounds, flops = 0, 2.0 * tokens * sum(rows * columns for rows, columns in _linears(config)) * _COPIES
    # Queue several rounds on a GPU before each synchronisation, so that it does not idle in between.
    queued = 20 if device.type == "cuda" else 1
    _wait(device)
    started = time.perf_counter()
    while rounds < 2 or time.perf_counter() - started < 2:
        for _ in range(queued):
            _run(products)
        _wait(device)
        rounds += queued
    return flops * rounds / (time.perf_counter() - started)


def _linears(config: PreTrainedConfig) -> list[tuple[int, int]]:
    """[out, in] of each linear layer of a decoder layer."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    return [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries), (inner, hidden), (inner, hidden),
            (hidden, inner)]  # fmt: skip


@torch.inference_mode()
def _run(products: Iterable[Iterable[tuple[torch.Tensor, torch.Tensor]]]) -> None:
    for layer in products:
        for states, weight in layer:
            torch.nn.functional.linear(states, weight)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
