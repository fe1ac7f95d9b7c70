"""Warming up: the first forward passes of a loaded encoder, which also measure the device's speed and memory."""

import logging
import time
from array import array

import torch

from l2v.models.batch import token_budget
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError
from l2v.models.faults import Fault
from l2v.models.types import Encoding

logger = logging.getLogger(__name__)

# Numbers of tokens: of one sequence, of the first forward pass, and of the pass that measures the device's speed.
_ROW, _FIRST_TOKENS, _RATE_TOKENS = 16, 16, 128


def warm_up(encoder: Encoder, max_batch_tokens: int | None = None) -> int:
    """Runs a few batches, so that one-time work does not delay the first request.

    Returns:
        The token budget of a forward pass: `max_batch_tokens`, or if that is None, a number that suits the device's
        speed. On a GPU, the budget is halved until a batch of that many tokens fits into the memory.

    Raises:
        ModelError: if not even one short sequence fits into the memory.
    """
    _fit(encoder, _FIRST_TOKENS)
    _, rate = _fit(encoder, _RATE_TOKENS)
    budget = max_batch_tokens or token_budget(encoder.device, rate)
    if encoder.device.type != "cuda":
        return budget
    # CUDA loads kernels and allocates memory at first use.
    fitting, _ = _fit(encoder, budget)
    if fitting < budget:
        logger.warning(
            "the device has not enough memory for the token budget",
            extra={"max_batch_tokens": budget, "reduced_to": fitting},
        )
    return fitting


def _fit(encoder: Encoder, tokens: int) -> tuple[int, float]:
    """Runs a batch of `tokens` tokens. While memory runs out, halves the batch and runs it again.

    Returns:
        The number of tokens that fit, and the tokens per second that were computed.
    """
    while (rate := _rate(encoder, tokens)) is None:
        if tokens <= _ROW:
            raise ModelError(
                f"the memory of device {encoder.device} is too small for a forward pass of {_ROW} tokens beside the "
                "model: use a smaller model or a device with more memory"
            )
        torch.cuda.empty_cache()  # cuBLAS and cuDNN cannot use the memory that torch caches
        tokens //= 2
    return tokens, rate


def _rate(encoder: Encoder, tokens: int) -> float | None:
    """Tokens per second, measured on a batch of about `tokens` tokens; None if memory runs out."""
    row = Encoding(array("q", [0] * min(_ROW, encoder.max_length)), pooled=1)
    rows = max(1, tokens // len(row))
    started = time.perf_counter()
    try:
        encoder.forward([row] * rows)
    except Exception as error:
        if Fault.of(error) is not Fault.OUT_OF_MEMORY:
            raise
        return None  # not the error, since it would keep the batch in memory
    return rows * len(row) / (time.perf_counter() - started)
