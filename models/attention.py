"""Packed bidirectional attention: the only file that knows about masks.

Sequences stand one behind the other in a single row of T tokens; `cu_seqlens` says where each begins. Every token
attends to every token of its own sequence and to nothing else. So this one function is at once LLM2Vec's
bidirectional patch (paper, section 2.1) and what makes padding unnecessary. transformers calls it in place of its own
attention for every decoder that uses the attention interface.
"""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from l2v.models.errors import UnsupportedModelError
from l2v.models.segments import attend_in_groups

NAME = "l2v_packed"

# torch 2.11 takes fewer key heads than query heads without being told so; later versions want this flag.
_grouped: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
_varlen_attn: Callable[..., Any] = partial(varlen_attn, **_grouped)
# Below so many tokens, one sequence alone is faster computed by torch's own attention.
_SHORT = 100
# Arguments by which some architectures change the attention scores: ignoring one would give wrong vectors silently.
_UNSUPPORTED = {
    "softcap": "soft-caps its attention scores",
    "s_aux": "uses attention sinks",
    "position_bias": "biases its attention scores",
}


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention within each segment: one SDPA call for each run of segments of one length. Differentiable.

    Args:
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D].
        cu_seqlens: [n + 1] int32.
        scale: the factor on the scores.
        causal: let a token see only what stands before it: what LLM2Vec does away with, kept to compare with.
        dropout: the probability by which a weight of the attention is dropped.

    Returns:
        [1, T, H, D], contiguous.
    """
    lengths = [end - start for start, end in pairwise(cu_seqlens.tolist())]
    grouped = query.shape[1] != key.shape[1]
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    # Split, not sliced one by one: the gradient of each slice would be as large as the whole row.
    sizes = [length * count for length, count in runs]
    parts = (states[0].split_with_sizes(sizes, dim=1) for states in (query, key, value))
    pieces = []
    for (length, count), *run in zip(runs, *parts, strict=True):
        q, k, v = (states.unflatten(1, (count, length)).transpose(0, 1) for states in run)
        attended = scaled_dot_product_attention(
            q, k, v, scale=scale, enable_gqa=grouped, is_causal=causal, dropout_p=dropout
        )
        pieces.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(pieces)[None]


@torch.library.custom_op("l2v::segment_attention", mutates_args=())
def segment_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor, scale: float
) -> torch.Tensor:
    """Attention without gradients as an opaque op, for CPUs, and on CUDA for float32 and GPUs before Ampere.

    So that torch.compile meets one call of dynamic length rather than a new Python list of lengths (and a
    recompilation) for every batch.
    """
    if query.dtype == torch.bfloat16 and not query.is_cuda:
        lengths = tuple(cu_seqlens.diff().tolist())
        if len(lengths) > 1 or lengths[0] >= _SHORT:
            return attend_in_groups(query, key, value, lengths, scale)
    return attend(query, key, value, cu_seqlens, scale)


@segment_attention.register_fake
def _(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor, scale: float
) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int = 0,
    causal: bool = False,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function as transformers calls it in every layer.

    A `sliding_window` is ignored, as the reference ignores Mistral's: LLM2Vec attends to the whole sequence.

    Args:
        module: the attention module of the layer.
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D].
        attention_mask: None; any mask is refused.
        scaling: the factor on the scores; 1/sqrt(D) where None.
        cu_seqlens: [n + 1] int32, handed through by the model from the call of `forward`.
        max_seqlen: the longest sequence.
        causal: see `attend`.
        dropout: see `attend`; what an architecture hands here while it trains.
        kwargs: what else an architecture hands its attention.

    Returns:
        ([1, T, H, D], None), as transformers expects.

    Raises:
        UnsupportedModelError: if the architecture asks for something that this function does not do.
    """
    architecture = type(module).__name__
    if cu_seqlens is None:
        raise UnsupportedModelError(f"{architecture} does not hand sequence bounds to its attention function")
    if attention_mask is not None:
        raise UnsupportedModelError(f"{architecture} brings an attention mask of its own")
    for name, what in _UNSUPPORTED.items():
        if kwargs.get(name) is not None:
            raise UnsupportedModelError(f"{architecture} {what} ({name}), which packed attention does not support")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not dropout and _has_kernel(query):
        rows = [states[0].transpose(0, 1) for states in (query, key, value)]
        window = {"window_size": (-1, 0)} if causal else {}
        output: torch.Tensor = _varlen_attn(
            *rows, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, scale=scale, **window
        )
        return output[None], None
    if causal or dropout or torch.is_grad_enabled():
        return attend(query, key, value, cu_seqlens, scale, causal=causal, dropout=dropout), None
    return segment_attention(query, key, value, cu_seqlens, scale), None


def _has_kernel(query: torch.Tensor) -> bool:
    """Whether torch's kernel for packed sequences takes them: in half precision, on GPUs from Ampere on."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return torch.cuda.get_device_properties(query.device).major >= 8


# Without a mask function of its name, transformers builds no mask: the bounds of the sequences say all. With one, it
# would look at the positions first, for which the host waits on a GPU.
AttentionInterface.register(NAME, packed_attention)
