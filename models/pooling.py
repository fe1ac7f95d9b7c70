"""From packed hidden states to one vector a sequence: pure functions (paper, section 3.2; reference `get_pooling`)."""

import torch

from l2v.models.batch import Batch
from l2v.models.types import Pooling


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
    spans, total = batch.pooled, batch.pooled_tokens

    def each(of_sequence: torch.Tensor) -> torch.Tensor:
        """[n] → [total]: a sequence's value at each of its pooled positions. Told the total, it asks no GPU for it."""
        return of_sequence.repeat_interleave(spans, output_size=total)

    # One row of hidden states for each pooled position, sequence after sequence, and its rank 0…N-1 in its span.
    rank = torch.arange(total, device=spans.device) - each(spans.cumsum(0) - spans)
    rows = hidden[rank + each(ends - spans)].float()
    # Unsafe: the lengths are not checked, for which the host would wait.
    if pooling == "weighted_mean":
        weights = 2 * (rank + 1) / each(spans * (spans + 1))
        return torch.segment_reduce(rows * weights[:, None], "sum", lengths=spans, unsafe=True)
    return torch.segment_reduce(rows, "mean", lengths=spans, unsafe=True)
