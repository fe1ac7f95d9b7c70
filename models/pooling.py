"""From packed hidden states to one vector a sequence: pure functions (paper, section 3.2; reference `get_pooling`)."""

import torch

from models.batch import Batch
from models.types import Pooling


def pool(hidden: torch.Tensor, batch: Batch, pooling: Pooling) -> torch.Tensor:
    """Pools each sequence's span, its last `batch.pooled` positions.

    Args:
        hidden: [T, d], the hidden states after the final norm.
        batch: the batch that gave them.
        pooling: `mean`, `weighted_mean` (weights 1…N over the span, normalised), `eos_token` and `last_token` (the
            last position), `bos_token` (the first position).

    Returns:
        [n, d] float32.
    """
    starts, ends = batch.cu_seqlens[:-1].long(), batch.cu_seqlens[1:].long()
    if pooling == "bos_token":
        return hidden[starts].float()
    if pooling in ("eos_token", "last_token"):
        return hidden[ends - 1].float()
    spans = batch.pooled
    # One row of hidden states for each pooled position, sequence after sequence, and its rank 0…N-1 in its span.
    offsets = spans.cumsum(0) - spans
    rank = torch.arange(int(spans.sum()), device=spans.device) - offsets.repeat_interleave(spans)
    rows = hidden[rank + (ends - spans).repeat_interleave(spans)].float()
    if pooling == "weighted_mean":
        weights = 2 * (rank + 1) / (spans * (spans + 1)).repeat_interleave(spans)
        return torch.segment_reduce(rows * weights[:, None], "sum", lengths=spans)
    return torch.segment_reduce(rows, "mean", lengths=spans)
