"""Attention in bfloat16 on the CPU: sequences of like length together, few large products for many small ones.

torch's own attention for CPUs makes products of blocks of each sequence, too small for the fast units: a half to a
third of the speed. In float32 it is as fast as this.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch

# Lengths are rounded up to multiples of these, up to the edge and beyond it, and what rounds to the same is a group. So
# keys come in multiples of 32, without which the softmax of bfloat16 takes up to four times as long.
_FINE, _COARSE, _EDGE = 32, 64, 128
# Scores that are held at once: what stays in the cache, and bounds the memory.
_SCORES = 2**22


@dataclass(frozen=True)
class _Group:
    """Sequences side by side, each as long as the others: behind a shorter one its last token stands again.

    Attributes:
        count: how many.
        queries: of each; as many as the longest has tokens.
        keys: of each; the rounded length.
        bias: [count, 1, keys], 0 for a sequence's own tokens and -inf behind them; None where all have that length.
    """

    count: int
    queries: int
    keys: int
    bias: torch.Tensor | None


@dataclass(frozen=True)
class _Plan:
    """How the tokens of a packed row are laid out for attention by groups: rows of one head each.

    Attributes:
        groups: one behind the other.
        query: [R] int64, the row of [T · H] that goes to each place, R being the queries of all groups times H.
        key: the same for key and value, of their own number and H_kv.
        back: [T · H] int64, where each row's outcome stands in [R].
    """

    groups: list[_Group]
    query: torch.Tensor
    key: torch.Tensor
    back: torch.Tensor


def attend_in_groups(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], scale: float
) -> torch.Tensor:
    """Attention of every token to all tokens of its own sequence. Not differentiable.

    Args:
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D].
        lengths: of the sequences, which add up to T.
        scale: the factor on the scores.

    Returns:
        [1, T, H, D], contiguous.
    """
    _, heads, tokens, width = query.shape
    key_heads = key.shape[1]
    plan = _plan(lengths, heads, key_heads, query.dtype)
    queries, keys, values = (
        states.transpose(1, 2).reshape(-1, width).index_select(0, rows)
        for states, rows in ((query, plan.query), (key, plan.key), (value, plan.key))
    )
    attended = torch.empty_like(queries)
    query_sizes = [group.count * group.queries * heads for group in plan.groups]
    key_sizes = [group.count * group.keys * key_heads for group in plan.groups]
    parts = zip(
        *(rows.split_with_sizes(query_sizes) for rows in (queries, attended)),
        *(rows.split_with_sizes(key_sizes) for rows in (keys, values)),
        strict=True,
    )
    for group, rows in zip(plan.groups, parts, strict=True):
        # Heads that share keys stand one behind the other, as if they were more queries.
        q, out, k, v = (part.view(group.count * key_heads, -1, width) for part in rows)
        scores = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scale)
        if group.bias is not None:
            scores.view(group.count, -1, group.keys).add_(group.bias)
        torch.bmm(torch.softmax(scores, -1), v, out=out)
    return attended.index_select(0, plan.back).view(1, tokens, heads, width)


@lru_cache(maxsize=2)
def _plan(lengths: tuple[int, ...], heads: int, key_heads: int, dtype: torch.dtype) -> _Plan:
    """The same for all layers of a forward pass, so it is made once."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    groups, query, key, own = [], [], [], []
    for keys, run in groupby(order, key=lambda index: _rounded(lengths[index])):
        alike = list(run)
        step = max(1, _SCORES // (heads * keys**2))
        for members in (torch.tensor(alike[first : first + step]) for first in range(0, len(alike), step)):
            queries = int(sizes[members].max())
            # The token at each place, and whether it is the sequence's own there.
            places = torch.arange(keys)
            valid = places < sizes[members, None]
            tokens = starts[members, None] + places.minimum(sizes[members, None] - 1)
            bias = torch.zeros(valid.shape, dtype=dtype).masked_fill_(~valid, -torch.inf)[:, None]
            groups.append(_Group(len(members), queries, keys, None if valid.all() else bias))
            query.append(_rows(tokens[:, :queries], heads))
            key.append(_rows(tokens, key_heads))
            own.append(valid[:, None, :queries].expand(-1, heads, -1).flatten())
    rows, real = torch.cat(query), torch.cat(own)
    back = torch.empty(sum(lengths) * heads, dtype=torch.int64)
    back[rows[real]] = real.nonzero().flatten()
    return _Plan(groups, rows, torch.cat(key), back)


def _rounded(length: int) -> int:
    step = _FINE if length <= _EDGE else _COARSE
    return -(-length // step) * step


def _rows(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """Of [n, L] tokens the rows of all heads, in the order [n, H, L]."""
    return (tokens[:, None] * heads + torch.arange(heads)[:, None]).flatten()
