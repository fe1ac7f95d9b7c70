"""Probes that a loaded model does what it claims: finite, bidirectional, and blind to its batch-mates."""

from array import array
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from l2v.models.batch import Batch
from l2v.models.encoder import hidden_states
from l2v.models.errors import ModelError, UnsupportedModelError, first_line
from l2v.models.types import DType, Encoding

_LENGTH = 16
# Such sequences make more tokens than any library takes for few.
_MANY = 33
# Least cosine of a token's hidden state before and after rounding to 8 bits.
_CLOSE = 0.98
# Between two runs of the same row in other company only rounding may differ.
_TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@torch.inference_mode()
def verify(model: PreTrainedModel) -> None:
    """Runs a few tokens through the model and looks at what moves.

    Raises:
        UnsupportedModelError: if a change of the last token leaves the first one's hidden state as it was (the model
            runs causally), or if a sequence sees its neighbours in a packed row.
        ModelError: if weights or hidden states are not finite.
    """
    architecture = type(model).__name__
    _check_finite(model)
    sequence, changed = _probes(model)
    try:
        alone, moved = (_run(model, [ids]) for ids in (sequence, changed))
        packed = _run(model, [changed, sequence, changed])[_LENGTH : 2 * _LENGTH]
    except UnsupportedModelError:
        raise
    except Exception as error:  # of the architecture's own code, on whatever its config says
        raise UnsupportedModelError(
            f"{architecture} cannot run packed sequences ({type(error).__name__}: {first_line(error)})"
        ) from error
    if not (alone.isfinite().all() and moved.isfinite().all()):
        raise ModelError(f"{architecture} computes NaN or infinity: its weights are damaged, or need another dtype")
    # A causal model repeats the first token's state to the last bit: the same numbers go through the same kernels.
    if torch.equal(alone[0], moved[0]):
        raise UnsupportedModelError(
            f"{architecture} runs causally: its first token does not see its last, so it is not an LLM2Vec encoder"
        )
    difference = (packed - alone).norm(dim=-1) / alone.norm(dim=-1)
    if difference.max() > _TOLERANCE[model.dtype]:
        raise UnsupportedModelError(
            f"{architecture} mixes the sequences of a batch: it cannot be served without padding"
        )


@torch.inference_mode()
def verify_rounding(model: PreTrainedModel, quantize: Callable[[PreTrainedModel], None], dtype: DType) -> float:
    """Quantises a verified model to `dtype`, and looks how far that moves what it computes.

    Returns:
        The least cosine of a token's hidden state before and after.

    Raises:
        UnsupportedModelError: if the device is not made for that dtype, or the model does not bear it.
    """
    sequence, _ = _probes(model)
    before = _run(model, [sequence])
    quantize(model)
    try:
        # Libraries have other products for few tokens than for many.
        after = torch.stack([_run(model, [sequence] * count)[:_LENGTH] for count in (1, _MANY)])
    except Exception as error:  # of a library, on sizes that it has no product for
        raise UnsupportedModelError(f"{dtype} does not run on this device ({first_line(error)}): use auto") from error
    cosine = float(torch.cosine_similarity(before, after, dim=-1).min())
    if not cosine >= _CLOSE:
        raise UnsupportedModelError(
            f"{dtype} changes what {type(model).__name__} computes (cosine {cosine:.4f}, at least {_CLOSE}): "
            "use another dtype"
        )
    return cosine


def _check_finite(model: PreTrainedModel) -> None:
    """The probe sees the few tokens that it runs; a damaged row of the embeddings may be another's."""
    for name, weight in model.named_parameters():
        # A sum is NaN or infinite where a number is, and takes no memory of the weight's size.
        if not weight.sum(dtype=torch.float32).isfinite():
            raise ModelError(
                f"{name} of {type(model).__name__} holds NaN or infinity: it is damaged, or needs another dtype"
            )


def _probes(model: PreTrainedModel) -> tuple[list[int], list[int]]:
    """Two sequences of tokens that differ in their last."""
    tokens = [(7919 * i + 13) % model.config.vocab_size for i in range(_LENGTH + 1)]
    return tokens[:-1], tokens[:-2] + tokens[-1:]


def _run(model: PreTrainedModel, sequences: list[list[int]]) -> torch.Tensor:
    batch = Batch.pack([Encoding(array("q", ids), pooled=1) for ids in sequences], model.device)
    return hidden_states(model, batch).float()
