"""The forward pass of a bare decoder over a packed batch."""

import torch

from l2v.models.batch import Batch


def hidden_states(
    model: torch.nn.Module, batch: Batch, *, causal: bool = False, windowed: bool = False
) -> torch.Tensor:
    """The hidden states of a packed batch after the final norm, [T, d].

    Args:
        model: the bare decoder.
        batch: the batch.
        causal: whether a token attends only to itself and to earlier tokens.
        windowed: apply the sliding windows of the architecture.
    """
    output = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        cu_seqlens=batch.cu_seqlens,
        cu_seqlens_cpu=batch.cu_seqlens_cpu,
        max_seqlen=batch.max_seqlen,
        causal=causal,
        windowed=windowed,
        use_cache=False,
    )
    states: torch.Tensor = output.last_hidden_state[0]
    return states
