"""Packed attention, bidirectional or causal.

Sequences are concatenated into one row of T tokens without padding; `cu_seqlens` holds their bounds. A token attends
only to tokens of its own sequence: to all tokens (LLM2Vec's bidirectional patch; paper, section 2.1), or to itself and
earlier tokens (causal). A window, if any, limits this further to nearby tokens. transformers calls `packed_attention`
in every decoder that uses transformers' attention interface.
"""

import inspect
from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from l2v.models.bucketed_attention import bucketed_attention, pays
from l2v.models.errors import UnsupportedModelError
from l2v.models.sdpa import sdpa

NAME = "l2v_packed"
# The inputs that other libraries pass to a decoder. `ModelTokenizer.write` names them in tokenizer_config.json.
INPUTS = ["input_ids", "attention_mask"]

# Options of torch's kernel for packed sequences, which torch 2.11 lacks. Later versions need `enable_gqa` to accept
# fewer key heads than query heads; torch 2.11 accepts this without the option.
# With `num_splits=1`, a sequence's result depends on no other sequence of the batch, not even in its last bits.
_OPTIONS: dict[str, Any] = {"enable_gqa": True, "num_splits": 1}
_known = inspect.signature(varlen_attn).parameters
_varlen_attn: Callable[..., Any] = partial(varlen_attn, **{k: v for k, v in _OPTIONS.items() if k in _known})
# The kernel's maximum head width, and the number that each head width must be a multiple of.
_MAX_HEAD, _HEAD_MULTIPLE = 256, 8
# Arguments that have no effect here; `causal` decides, not `is_causal`.
_HARMLESS = {
    "cache_position", "deterministic", "is_causal", "output_attentions", "output_hidden_states", "position_ids",
    "return_dict", "use_cache",
}  # fmt: skip
# Arguments by which some architectures change the attention scores. Any other unknown argument may do so too: ignoring
# one would silently give wrong vectors.
_UNSUPPORTED = {
    "softcap": "soft-caps its attention scores",
    "s_aux": "uses attention sinks",
    "position_bias": "adds a position bias to its attention scores",
}


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_cpu: torch.Tensor,
    scale: float,
    *,
    causal: bool = False,
    window: int = 0,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Attention within each sequence, with one SDPA call per run of adjacent sequences of equal length. Differentiable.

    Args:
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D_v].
        cu_seqlens_cpu: [n + 1] int32, the bounds of the sequences, on the CPU, so that reading them does not wait for a
            GPU.
        scale: factor on the attention scores.
        causal: attend only to tokens up to the query's own position.
        window: attend only to tokens that are less than `window` positions away; 0: no limit.
        dropout: dropout probability of the attention weights.

    Returns:
        [1, T, H, D_v], contiguous.
    """
    lengths = [end - start for start, end in pairwise(cu_seqlens_cpu.tolist())]
    if len(lengths) == 1:
        return sdpa(query, key, value, scale, causal=causal, window=window, dropout=dropout).contiguous()
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    # The states are split, not sliced: the gradient of each slice would be as large as the whole row.
    sizes = [length * count for length, count in runs]
    parts = (states[0].split_with_sizes(sizes, dim=1) for states in (query, key, value))
    outputs = []
    for (length, count), *run in zip(runs, *parts, strict=True):
        q, k, v = (states.unflatten(1, (count, length)).transpose(0, 1) for states in run)
        attended = sdpa(q, k, v, scale, causal=causal, window=window, dropout=dropout)
        outputs.append(attended.flatten(0, 1))
    return torch.cat(outputs)[None]


@torch.library.custom_op("l2v::segment_attention", mutates_args=())
def segment_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seqlens_cpu: torch.Tensor,
    scale: float,
    causal: bool = False,
    window: int = 0,
) -> torch.Tensor:
    """Attention without gradients, for use where torch has no kernel for packed sequences (see `_has_kernel`).

    This is an opaque op, so that torch.compile sees one call of dynamic length. Otherwise, torch.compile would compile
    again for every new list of lengths.
    """
    if query.dtype == torch.bfloat16 and not query.is_cuda:
        lengths = tuple(cu_seqlens_cpu.diff().tolist())
        if pays(lengths):
            return bucketed_attention(query, key, value, lengths, scale, causal=causal, window=window)
    return attend(query, key, value, cu_seqlens_cpu, scale, causal=causal, window=window)


@segment_attention.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    max_seqlen: int = 0,
    causal: bool = False,
    windowed: bool = False,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in every layer.

    Args:
        module: the layer's attention module.
        query: [1, H, T, D].
        key: [1, H_kv, T, D].
        value: [1, H_kv, T, D].
        attention_mask: must be None.
        scaling: factor on the attention scores; None: 1/sqrt(D).
        cu_seqlens: [n + 1] int32, the bounds of the sequences. The caller of the model's `forward` passes this and the
            next four arguments.
        cu_seqlens_cpu: `cu_seqlens` on the CPU.
        max_seqlen: length of the longest sequence.
        causal: see `attend`.
        windowed: apply `sliding_window`. LLM2Vec attends to the whole sequence instead, as the reference does.
        sliding_window: the layer's window, which its architecture passes; see `attend`.
        dropout: see `attend`; architectures pass it while training.
        kwargs: other arguments that the architecture passes.

    Returns:
        ([1, T, H, D], None), as transformers expects.

    Raises:
        UnsupportedModelError: if the architecture passes an argument that changes the attention scores, or does not
            pass `cu_seqlens`.
    """
    architecture = type(module).__name__
    if cu_seqlens is None or cu_seqlens_cpu is None:
        raise UnsupportedModelError(f"{architecture} does not pass cu_seqlens to its attention function")
    if attention_mask is not None:
        raise UnsupportedModelError(f"{architecture} passes its own attention mask")
    for name, argument in kwargs.items():
        if argument is not None and name not in _HARMLESS:
            effect = _UNSUPPORTED.get(name, "passes its attention function an argument of its own")
            raise UnsupportedModelError(f"{architecture} {effect} ({name}), which packed attention does not support")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    window = sliding_window if windowed and sliding_window else 0
    if not dropout and _has_kernel(query, value):
        rows = [states[0].transpose(0, 1) for states in (query, key, value)]
        size = (window - 1, 0 if causal else window - 1)  # -1: no limit
        limit = {} if size == (-1, -1) else {"window_size": size}
        output: torch.Tensor = _varlen_attn(*rows, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, scale=scale, **limit)
        return output[None], None
    if dropout or torch.is_grad_enabled():
        return attend(query, key, value, cu_seqlens_cpu, scale, causal=causal, window=window, dropout=dropout), None
    return segment_attention(query, key, value, cu_seqlens_cpu, scale, causal, window), None


def _has_kernel(query: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether torch's kernel for packed sequences supports this dtype, head size and GPU (Ampere or newer)."""
    if not query.is_cuda or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    size = query.shape[-1]
    if size > _MAX_HEAD or size % _HEAD_MULTIPLE or value.shape[-1] != size:
        return False
    return torch.cuda.get_device_properties(query.device).major >= 8


# No mask function is registered under this name, so transformers builds no mask. To build one, transformers would read
# the positions, and the CPU would have to wait for the GPU.
AttentionInterface.register(NAME, packed_attention)
