"""Attention in bfloat16 on the CPU: sequences of similar length are computed together, in a few large products.

torch's own CPU attention multiplies blocks of one sequence at a time. Without AMX, it runs at a third to half the speed
of this module in bfloat16, and as fast in float32. With AMX, it is faster except for many short sequences, so it
computes the others (docs/performance.md).
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch

from l2v.models.sdpa import sdpa, visible

# Lengths up to _EDGE are rounded up to a multiple of _FINE, longer lengths to a multiple of _COARSE. Sequences
# of the same rounded length form one or more buckets. The softmax of bfloat16 takes up to four times as long if the
# number of keys is not a multiple of 32.
_FINE, _COARSE, _EDGE = 32, 64, 128
# Maximum number of attention scores computed at once, so that they stay in the CPU's cache. A single
# sequence may exceed it.
_MAX_SCORES = 2**22
# A single sequence shorter than this is faster with torch's own attention.
_MIN_ALONE = 100
# With AMX, torch's own attention is faster for single sequences, for sequences whose rounded length is at least
# `_AMX_LONG`, and where fewer than `_AMX_MIN_COUNT` sequences have the same rounded length.
_AMX = bool(torch.cpu.get_capabilities().get("amx_bf16"))
_AMX_LONG, _AMX_MIN_COUNT = 512, 3


def pays(lengths: tuple[int, ...]) -> bool:
    """Whether `bucketed_attention` is faster than torch's own attention for sequences of these lengths."""
    return len(lengths) > 1 or (not _AMX and lengths[0] >= _MIN_ALONE)


@dataclass(frozen=True)
class _Bucket:
    """Sequences computed together. Shorter sequences are padded with copies of their last token.

    Attributes:
        count: number of sequences.
        queries: number of queries per sequence, which is the length of the longest sequence.
        keys: number of keys per sequence, which is `queries` rounded up, see `_EDGE`.
        bias: [count, 1, keys], 0 for a sequence's own tokens and -inf for padding; None if there is no padding.
        hidden: [queries, keys], true where a query does not attend to a key; None if all queries attend to all keys.
    """

    count: int
    queries: int
    keys: int
    bias: torch.Tensor | None
    hidden: torch.Tensor | None


@dataclass(frozen=True)
class _Layout:
    """How the tokens of a batch map to the buckets, and back. A row is one head of one token.

    Attributes:
        buckets: the buckets, in the order of their rows.
        alone: the bounds of the sequences that are in no bucket. Their rows follow those of the buckets.
        query: [R] int64, for each query row of the buckets, its index among the batch's T · H query rows.
        key: [R_kv] int64, for each key and value row of the buckets, its index among the batch's T · H_kv rows.
        output: [T · H] int64, for each output row of the batch, its index among the rows of `buckets` and `alone`.
    """

    buckets: list[_Bucket]
    alone: list[tuple[int, int]]
    query: torch.Tensor
    key: torch.Tensor
    output: torch.Tensor


def bucketed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    scale: float,
    *,
    causal: bool = False,
    window: int = 0,
) -> torch.Tensor:
    """Attention within each sequence. Not differentiable.

    Args:
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D_v].
        lengths: the lengths of the sequences; their sum is T.
        scale: factor on the attention scores.
        causal, window: see `attention.attend`.

    Returns:
        [1, T, H, D_v], contiguous.
    """
    _, heads, tokens, _ = query.shape
    key_heads, width = value.shape[1], value.shape[3]
    layout = _layout(lengths, heads, key_heads, query.dtype, causal, window)
    queries, keys, values = (
        states.transpose(1, 2).reshape(-1, states.shape[3]).index_select(0, rows)
        for states, rows in ((query, layout.query), (key, layout.key), (value, layout.key))
    )
    query_sizes = [bucket.count * bucket.queries * heads for bucket in layout.buckets]
    key_sizes = [bucket.count * bucket.keys * key_heads for bucket in layout.buckets]
    sizes_alone = [(end - start) * heads for start, end in layout.alone]
    attended = value.new_empty(sum(query_sizes) + sum(sizes_alone), width)
    outputs = attended.split_with_sizes(query_sizes + sizes_alone)
    parts = zip(
        queries.split_with_sizes(query_sizes),
        outputs[: len(layout.buckets)],
        *(rows.split_with_sizes(key_sizes) for rows in (keys, values)),
        strict=True,
    )
    for bucket, rows in zip(layout.buckets, parts, strict=True):
        # Query heads that share a key head are concatenated, as if they were more queries of one head.
        q, out, k, v = (part.view(bucket.count * key_heads, -1, part.shape[1]) for part in rows)
        scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scale)
        if bucket.bias is not None:
            scores.view(bucket.count, -1, bucket.keys).add_(bucket.bias)
        if bucket.hidden is not None:
            scores.view(-1, bucket.queries, bucket.keys).masked_fill_(bucket.hidden, -torch.inf)
        torch.bmm(torch.softmax(scores, -1), v, out=out)
    for (start, end), out in zip(layout.alone, outputs[len(layout.buckets) :], strict=True):
        q, k, v = (states[:, :, start:end] for states in (query, key, value))
        out.view(1, end - start, heads, width).copy_(sdpa(q, k, v, scale, causal=causal, window=window))
    return attended.index_select(0, layout.output).view(1, tokens, heads, width)


@lru_cache(maxsize=2)
def _layout(
    lengths: tuple[int, ...], heads: int, key_heads: int, dtype: torch.dtype, causal: bool, window: int
) -> _Layout:
    """Builds the layout. The result is cached, since all layers of a forward pass use the same layout."""
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    buckets, alone, none = [], [], torch.empty(0, dtype=torch.int64)
    query, key, valid_queries = [none], [none], [none.bool()]
    for keys, run in groupby(by_length, key=lambda index: _rounded_up(lengths[index])):
        indices = list(run)
        if _AMX and (len(indices) < _AMX_MIN_COUNT or keys >= _AMX_LONG):
            alone += indices
            continue
        most = max(1, _MAX_SCORES // (heads * keys**2))
        for members in (torch.tensor(indices[first : first + most]) for first in range(0, len(indices), most)):
            queries = int(sizes[members].max())
            # The token at each position of the bucket; past a sequence's end, its last token.
            positions = torch.arange(keys)
            valid = positions < sizes[members, None]
            tokens = starts[members, None] + positions.minimum(sizes[members, None] - 1)
            bias = torch.zeros(valid.shape, dtype=dtype).masked_fill_(~valid, -torch.inf)[:, None]
            hidden = ~visible(queries, keys, causal, window) if causal or 0 < window < queries else None
            buckets.append(_Bucket(len(members), queries, keys, None if valid.all() else bias, hidden))
            query.append(_rows(tokens[:, :queries], heads))
            key.append(_rows(tokens, key_heads))
            valid_queries.append(valid[:, None, :queries].expand(-1, heads, -1).flatten())
    rows, valid_rows = torch.cat(query), torch.cat(valid_queries)
    bounds = [(int(starts[index]), int(starts[index]) + lengths[index]) for index in sorted(alone)]
    rows_alone = [torch.arange(start * heads, end * heads) for start, end in bounds]
    output = torch.empty(sum(lengths) * heads, dtype=torch.int64)
    output[rows[valid_rows]] = valid_rows.nonzero().flatten()
    output[torch.cat([none, *rows_alone])] = torch.arange(len(rows), len(rows) + sum(map(len, rows_alone)))
    return _Layout(buckets, bounds, rows, torch.cat(key), output)


def _rounded_up(length: int) -> int:
    multiple = _FINE if length <= _EDGE else _COARSE
    return -(-length // multiple) * multiple


def _rows(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of the given tokens [n, L] for all H heads, in the order [n, H, L]."""
    return (tokens[:, None] * heads + torch.arange(heads)[:, None]).flatten()
