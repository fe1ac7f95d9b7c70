"""torch's own attention over sequences of equal length."""

import torch
from torch.nn.functional import scaled_dot_product_attention


def sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
    window: int = 0,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention within each of n sequences of L tokens. Differentiable.

    Args:
        query: [n, H, L, D].
        key: [n, H_kv, L, D].
        value: [n, H_kv, L, D_v].
        scale, causal, window, dropout: see `attention.attend`.

    Returns:
        [n, L, H, D_v].
    """
    length = query.shape[2]
    mask = visible(length, length, causal, window, query.device) if 0 < window < length else None
    attended = scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        is_causal=causal and mask is None,
        dropout_p=dropout,
    )
    return attended.transpose(1, 2)


def visible(queries: int, keys: int, causal: bool, window: int, device: torch.device | None = None) -> torch.Tensor:
    """[queries, keys]: whether each query attends to each key, given their positions.

    Args:
        queries: number of queries.
        keys: number of keys, at least `queries`. The first keys belong to the same tokens as the queries.
        causal, window: see `attention.attend`.
        device: the device of the result; None: the CPU.
    """
    positions = torch.arange(keys, dtype=torch.int32, device=device)
    distance = positions[:queries, None] - positions
    mask = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    return mask & (distance.abs() < window) if window else mask
