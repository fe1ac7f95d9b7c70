"""The input of one forward pass: several encodings packed into one row."""

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from l2v.models.types import Encoding

# Default token budget of a forward pass: enough to run matrix products at full speed.
_TOKENS = {"cuda": 16384}
_TOKENS_ELSEWHERE = 4096
# New requests wait until the current forward pass ends. So a slow device gets a lower budget, with which a pass takes
# at most about _MAX_SECONDS. The budget is never below _MIN_TOKENS.
_MAX_SECONDS, _MIN_TOKENS = 10.0, 512


@dataclass(frozen=True, slots=True)
class Batch:
    """Several encodings in one row without padding. Use `Batch.pack` or `Batch.of` to build a batch.

    Attributes:
        input_ids: [1, T] int64, T being the total number of tokens.
        position_ids: [1, T] int64, starting at 0 in each sequence.
        cu_seqlens: [n + 1] int32, the start of each of the n sequences; the last entry is T.
        cu_seqlens_cpu: `cu_seqlens` on the CPU.
        max_seqlen: length of the longest sequence.
        pooled: [n] int64, how many of the last positions of each sequence are pooled (at least 1).
        pooled_tokens: the sum of `pooled`.
        adapters: the id of each sequence's LoRA module, see `Encoding`; an empty tuple means that all ids are 0.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    cu_seqlens: torch.Tensor
    cu_seqlens_cpu: torch.Tensor
    max_seqlen: int
    pooled: torch.Tensor
    pooled_tokens: int
    adapters: tuple[int, ...] = ()

    @classmethod
    def pack(cls, encodings: list[Encoding], device: torch.device) -> "Batch":
        """Concatenates encodings in the given order, and moves the batch to `device`."""
        ids = array("q")
        for encoding in encodings:
            ids.extend(encoding.ids)
        return cls.of(
            torch.frombuffer(ids, dtype=torch.int64),
            torch.tensor([len(encoding) for encoding in encodings]),
            torch.tensor([max(1, encoding.pooled) for encoding in encodings]),
            device,
            tuple(encoding.adapter for encoding in encodings),
        )

    @classmethod
    def of(
        cls,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        pooled: torch.Tensor,
        device: torch.device,
        adapters: tuple[int, ...] = (),
    ) -> "Batch":
        """Builds a batch of token ids that are already concatenated.

        Args:
            ids: [T] int64, the token ids of all sequences.
            lengths: [n] int64, the lengths of the sequences; their sum is T.
            pooled: [n] int64, see `Batch`.
            device: target device of the batch.
            adapters: see `Batch`.
        """
        cu_seqlens = torch.zeros(len(lengths) + 1, dtype=torch.int32, device=lengths.device)
        cu_seqlens[1:] = lengths.cumsum(0)
        starts = cu_seqlens[:-1].long().repeat_interleave(lengths)
        return cls(
            input_ids=_to(device, ids[None]),
            position_ids=_to(device, (torch.arange(len(ids), device=lengths.device) - starts)[None]),
            cu_seqlens=_to(device, cu_seqlens),
            cu_seqlens_cpu=cu_seqlens.cpu(),
            max_seqlen=int(lengths.max()),
            pooled=_to(device, pooled),
            pooled_tokens=int(pooled.sum()),
            adapters=adapters,
        )

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """Moves a tensor to the device of the batch."""
        return _to(self.input_ids.device, tensor)


def token_budget(device: torch.device, tokens_per_second: float = math.inf) -> int:
    """Default number of tokens in one forward pass, given the device's speed."""
    most = _TOKENS.get(device.type, _TOKENS_ELSEWHERE)
    return int(min(most, max(_MIN_TOKENS, _MAX_SECONDS * tokens_per_second)))


def _to(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """Moves a tensor to the device. Copies to a GPU use pinned memory, so that the CPU does not wait for them."""
    if device.type == "cuda" and not tensor.is_cuda:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def batches(encodings: Iterable[Encoding], max_batch_tokens: int) -> Iterator[list[Encoding]]:
    """Splits encodings into runs of at most `max_batch_tokens` tokens; a longer encoding gets a run of its own."""
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
