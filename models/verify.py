"""Probes of a loaded model: it is finite and bidirectional, and the sequences of a batch do not affect each other."""

from array import array
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from l2v.models.batch import Batch
from l2v.models.encoder import hidden_states
from l2v.models.errors import ModelError, UnsupportedModelError, first_line
from l2v.models.types import DType, Encoding

_PROBE_TOKENS = 16
# This many probes make a batch for which libraries use their kernels for many tokens.
_MANY_PROBES = 33
# Least cosine of a token's hidden states before and after quantization.
_MIN_COSINE = 0.98
# Largest relative difference between a sequence alone and in a batch, which may only come from rounding.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@torch.inference_mode()
def verify(model: PreTrainedModel) -> None:
    """Runs a few tokens through the model and checks their hidden states.

    Raises:
        UnsupportedModelError: if changing the last token does not change the first one's hidden state (the model runs
            causally), or if a sequence is affected by its neighbours in a packed row.
        ModelError: if weights or hidden states are not finite.
    """
    architecture = type(model).__name__
    _check_finite(model)
    sequence, changed = _probes(model)
    try:
        alone, after_change = (_run(model, [ids]) for ids in (sequence, changed))
        packed = _run(model, [changed, sequence, changed])[_PROBE_TOKENS : 2 * _PROBE_TOKENS]
    except UnsupportedModelError:
        raise
    except Exception as error:  # the architecture's own code fails on the values of the config
        raise UnsupportedModelError(
            f"{architecture} cannot run packed sequences ({type(error).__name__}: {first_line(error)})"
        ) from error
    if not (alone.isfinite().all() and after_change.isfinite().all()):
        raise ModelError(f"{architecture} computes NaN or infinity: its weights are damaged or need another dtype")
    # Exact: in a causal model, the first token's state is computed from the same numbers by the same kernels.
    if torch.equal(alone[0], after_change[0]):
        raise UnsupportedModelError(
            f"{architecture} runs causally (its first token does not attend to its last): it is not an LLM2Vec encoder"
        )
    difference = (packed - alone).norm(dim=-1) / alone.norm(dim=-1)
    if difference.max() > _TOLERANCE[model.dtype]:
        raise UnsupportedModelError(
            f"{architecture} mixes the sequences of a batch: it cannot be served without padding"
        )


@torch.inference_mode()
def verify_quantization(model: PreTrainedModel, quantize: Callable[[PreTrainedModel], None], dtype: DType) -> float:
    """Quantizes a verified model to `dtype` and measures how far its hidden states move.

    Returns:
        The least cosine of a token's hidden states before and after.

    Raises:
        UnsupportedModelError: if the device does not support the dtype, or the hidden states move too far.
    """
    sequence, _ = _probes(model)
    before = _run(model, [sequence])
    quantize(model)
    try:
        # Libraries use different kernels for few and for many tokens.
        after = torch.stack([_run(model, [sequence] * count)[:_PROBE_TOKENS] for count in (1, _MANY_PROBES)])
    except Exception as error:  # a library has no kernel for these sizes
        raise UnsupportedModelError(f"{dtype} does not run on this device ({first_line(error)}): use auto") from error
    cosine = float(torch.cosine_similarity(before, after, dim=-1).min())
    if not cosine >= _MIN_COSINE:
        raise UnsupportedModelError(
            f"{dtype} changes the hidden states of {type(model).__name__} too much (cosine {cosine:.4f}, at least "
            f"{_MIN_COSINE} is required): use another dtype"
        )
    return cosine


def _check_finite(model: PreTrainedModel) -> None:
    """Checks all weights: a damaged row of the embeddings may belong to a token that the probes do not contain."""
    for name, weight in model.named_parameters():
        # The sum is NaN or infinite if any element is, and needs no copy of the weight.
        if not weight.sum(dtype=torch.float32).isfinite():
            raise ModelError(
                f"{name} of {type(model).__name__} holds NaN or infinity: it is damaged or needs another dtype"
            )


def _probes(model: PreTrainedModel) -> tuple[list[int], list[int]]:
    """Two sequences of token ids that differ only in the last."""
    tokens = [(7919 * i + 13) % model.config.vocab_size for i in range(_PROBE_TOKENS + 1)]
    return tokens[:-1], tokens[:-2] + tokens[-1:]


def _run(model: PreTrainedModel, sequences: list[list[int]]) -> torch.Tensor:
    batch = Batch.pack([Encoding(array("q", ids), pooled=1) for ids in sequences], model.device)
    return hidden_states(model, batch).float()
