"""What one forward pass takes: several encodings end to end."""

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from l2v.models.types import Encoding

# Tokens of one forward pass, where nobody says how many: enough for products at full speed.
_TOKENS = {"cuda": 16384}
_TOKENS_ELSEWHERE = 4096
# Fewer where they take longer than so many seconds, for which the next request would wait; not fewer than these.
_SECONDS, _LEAST = 10.0, 512


@dataclass(frozen=True, slots=True)
class Batch:
    """Several encodings in one row without padding. Filled by `Batch.pack`.

    Attributes:
        input_ids: [1, T] int64, T being the tokens of all encodings together.
        position_ids: [1, T] int64, from 0 within each sequence.
        cu_seqlens: [n + 1] int32, where each of the n sequences starts; the last entry is T.
        max_seqlen: the longest sequence.
        pooled: [n] int64, how many of each sequence's last positions are pooled (at least 1).
        pooled_tokens: how many that are of all sequences together.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    max_seqlen: int
    pooled: torch.Tensor
    pooled_tokens: int

    @classmethod
    def pack(cls, encodings: list[Encoding], device: torch.device) -> "Batch":
        """Concatenates the encodings, in their order, on `device`."""
        ids = array("q")
        for encoding in encodings:
            ids.extend(encoding.ids)
        return cls.of(
            torch.frombuffer(ids, dtype=torch.int64),
            torch.tensor([len(encoding) for encoding in encodings]),
            torch.tensor([max(1, encoding.pooled) for encoding in encodings]),
            device,
        )

    @classmethod
    def of(cls, ids: torch.Tensor, lengths: torch.Tensor, pooled: torch.Tensor, device: torch.device) -> "Batch":
        """The batch of T tokens that stand end to end already.

        Args:
            ids: [T] int64.
            lengths: [n] int64, which add up to T.
            pooled: [n] int64.
            device: where the batch is to be.
        """
        cu_seqlens = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
        cu_seqlens[1:] = lengths.cumsum(0)
        starts = cu_seqlens[:-1].long().repeat_interleave(lengths)
        return cls(
            input_ids=_on(device, ids[None]),
            position_ids=_on(device, (torch.arange(len(ids), device=lengths.device) - starts)[None]),
            cu_seqlens=_on(device, cu_seqlens),
            max_seqlen=int(lengths.max()),
            pooled=_on(device, pooled),
            pooled_tokens=int(pooled.sum()),
        )


def token_budget(device: torch.device, tokens_per_second: float = math.inf) -> int:
    """Tokens of one forward pass by default, on a device that computes so many a second."""
    most = _TOKENS.get(device.type, _TOKENS_ELSEWHERE)
    return int(min(most, max(_LEAST, _SECONDS * tokens_per_second)))


def _on(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """From pinned memory where it goes to a GPU, so that the host does not wait for the copy."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def batches(encodings: Iterable[Encoding], max_batch_tokens: int) -> Iterator[list[Encoding]]:
    """Consecutive encodings of at most `max_batch_tokens` together; a single longer one stands alone."""
    batch: list[Encoding] = []
    tokens = 0
    for encoding in encodings:
        if batch and tokens + len(encoding) > max_batch_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(encoding)
        tokens += len(encoding)
    if batch:
        yield batch
