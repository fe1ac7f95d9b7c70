"""Pooling of packed hidden states, one vector per sequence.

LLM2Vec: paper, section 3.2; reference `get_pooling`. sentence-transformers: its module `Pooling`.
"""

import torch

from l2v.models.batch import Batch
from l2v.models.types import Pooling, Semantics


def pool(hidden: torch.Tensor, batch: Batch, pooling: Pooling, semantics: Semantics = "llm2vec") -> torch.Tensor:
    """Pools each sequence's span, which is its last `batch.pooled` positions.

    Args:
        hidden: [T, d], the hidden states after the final norm.
        batch: the batch that they were computed from.
        pooling: `mean`, `weighted_mean` (weights 1…N over the span, normalized), `eos_token` and `last_token` (the last
            position) or `bos_token` (the first position).
        semantics: with `sentence-transformers`, the weights of `weighted_mean` count from the start of the sequence,
            and `bos_token` is the first position of the span.

    Returns:
        [n, d] float32.
    """
    starts, ends = batch.cu_seqlens[:-1].long(), batch.cu_seqlens[1:].long()
    spans, total = batch.pooled, batch.pooled_tokens
    by_row = semantics == "sentence-transformers"
    if pooling == "bos_token":
        return hidden[ends - spans if by_row else starts].float()
    if pooling in ("eos_token", "last_token"):
        return hidden[ends - 1].float()

    def repeat(per_sequence: torch.Tensor) -> torch.Tensor:
        """[n] → [total]: repeats a sequence's value for each of its pooled positions.

        Passing the total avoids a synchronization with the GPU.
        """
        return per_sequence.repeat_interleave(spans, output_size=total)

    # The position of each pooled token within its span, 0…N-1, and its hidden state.
    rank = torch.arange(total, device=spans.device) - repeat(spans.cumsum(0) - spans)
    rows = hidden[rank + repeat(ends - spans)].float()
    # unsafe=True skips a check of the lengths that makes the CPU wait for the GPU.
    if pooling == "weighted_mean":
        before = ends - starts - spans if by_row else torch.zeros_like(spans)
        weights = 2 * (repeat(before) + rank + 1) / repeat(spans * (2 * before + spans + 1))
        return torch.segment_reduce(rows * weights[:, None], "sum", lengths=spans, unsafe=True)
    return torch.segment_reduce(rows, "mean", lengths=spans, unsafe=True)
