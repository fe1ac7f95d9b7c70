"""Checks of a loaded model: its weights are finite, its attention is the configured one, and texts do not mix.

Some models amplify rounding a hundredfold, so `verify` has no fixed tolerance for the hidden states. Its checks:

1. Reach. With equal scores, each call of attention shows which tokens attend to which, whatever the weights. No token
   may attend to a neighbouring text, and tokens attend ahead if and only if the model is to run bidirectionally.
2. Direction. In a causal model, a change of the last token may not move the state of any earlier token. A bidirectional
   model need not pass a similar check, since rounding may hide the last token from the first token's state.
3. Leaks. If a probe's neighbours are replaced by others of the same lengths, the same kernels run on the same shapes.
   So not a bit of the probe's queries, keys, values and states may change, in any layer and any dtype.
4. Alone and packed. A probe that runs alone uses other kernels, which round differently. For each layer's queries, keys
   and values and for the final states, D is the distance between the packed probe and the probe alone, and N is how far
   the values move if each of the model's products is off by one epsilon. In sound models, D is at most 0.8 N at any
   depth, width, scale and dtype; more than 3 N is refused. A fault moves the values about as far as another token does:
   5 to 100 N in bfloat16, thousands of N in float32. If a model is so chaotic that another token moves the values less
   than 3 N, only the other checks can find a fault.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from l2v.models.devices import check_memory
from l2v.models.errors import ModelError, UnsupportedModelError, first_line
from l2v.models.experts import fixed_shapes, is_mixture
from l2v.models.lengths import sliding_window
from l2v.models.probe import OWN, RIGHT, TOKENS, Probe, Trace
from l2v.models.quantization.products import largest_error, recorded_products
from l2v.models.types import DType

_ALONE = slice(TOKENS)
# Number of samples of N; the largest sample counts. In a mixture, rounding seldom sends a token to another expert, but
# if it does, the token's states move far.
_SAMPLES, _SAMPLES_OF_MIXTURE = 2, 8
# Maximum of D in units of N.
_MAX_NOISE = 3.0
# Minimum of N, in epsilons: N must allow for a few values that round the other way, which the samples may miss.
_LEAST_NOISE = 1 / 24
# This many probes make a batch so large that libraries use their kernels for many tokens.
_MANY_PROBES = 33
# Minimum cosine of a token's hidden states before and after quantization, unless the model amplifies sound rounding.
_MIN_COSINE = 0.98
# Largest relative error of a quantized product. Sound rounding to 8 bits reaches 0.05 (int8) and 0.08 (fp8).
_MAX_ERROR = 0.125
_USE_ANOTHER = "it cannot be served without padding, so use another model"
_MIXES = f"mixes the sequences of a batch (a text's states depend on its neighbours): {_USE_ANOTHER}"


@torch.inference_mode()
def verify(model: PreTrainedModel, *, causal: bool = False, windowed: bool = False, max_length: int = 0) -> str:
    """Runs a few tokens through the model and checks what it computes, see the docstring of this file.

    Args:
        model: the bare decoder, with packed attention.
        causal: whether the model is to run causally.
        windowed: whether the model is to apply the sliding windows of its architecture.
        max_length: the maximum tokens of a text. A window of at least this width has no effect.

    Returns:
        The evidence about attention.

    Raises:
        UnsupportedModelError: if the model runs causally but should run bidirectionally, or vice versa, if a sequence
            is affected by its neighbours in a packed row, or if attention does not get the model's window.
        ModelError: if weights or hidden states are not finite.
    """
    architecture = type(model).__name__
    _check_finite(model)
    probe = Probe(model, causal, windowed)
    own, left, right, other_left, other_right, new = probe.sequences(6)
    try:
        alone = probe.run(own)
        packed, beside_others = probe.run(left, own, right), probe.run(other_left, own, other_right)
        # Here, the middle probe has another last token, and the right probe has another first token.
        changed = probe.run(left, [*own[:-1], new[0]], [new[1], *right[1:]])
        limits = _limits(probe, alone)
    except UnsupportedModelError:
        raise
    except Exception as error:  # the architecture's own code can fail on the values of the config
        check_memory(error, model, model.device)
        raise UnsupportedModelError(
            f"{architecture} cannot run packed sequences ({type(error).__name__}: {first_line(error)}): use another "
            "model"
        ) from error
    if not all(trace.states.isfinite().all() for trace in (alone, packed, beside_others, changed)):
        raise ModelError(f"{architecture} computes NaN or infinity: its weights are damaged or need another dtype")
    _check_direction(probe, packed, changed, limits)
    if windowed and (window := sliding_window(model.config)) and window < max_length and window not in packed.windows:
        raise UnsupportedModelError(
            f"{architecture} applies its sliding window by a mask, which packed attention does not use: set max_length "
            f"to at most {window}"
        )
    if any(reach.leaks for reach in packed.reach) or not _same(probe, packed, beside_others, OWN, limits):
        raise UnsupportedModelError(f"{architecture} {_MIXES}")
    distances = alone.distances(packed, _ALONE, OWN)
    if _exceeds(distances, limits):
        raise UnsupportedModelError(
            f"{architecture} computes other states for a packed text than for the same text alone: {_USE_ANOTHER}"
        )
    effect = packed.distances(changed, slice(RIGHT.start + 1, RIGHT.stop))[-1]
    return _evidence(probe, distances[-1], limits[-1], effect)


def _check_direction(probe: Probe, packed: Trace, changed: Trace, limits: list[float]) -> None:
    """Checks that tokens attend to earlier ones, and to later ones if and only if the model is to be bidirectional."""
    architecture = type(probe.model).__name__
    causally = (
        f"{architecture} runs causally (its first token does not attend to its last): it is not an LLM2Vec encoder, "
    )
    if not any(reach.back for reach in packed.reach):
        # The comparison is exact: a causal model computes both states from the same numbers by the same kernels.
        if not probe.causal and torch.equal(packed.states[OWN.start], changed.states[OWN.start]):
            raise UnsupportedModelError(f"{causally}so use another model")
        raise UnsupportedModelError(f"{architecture} does not use packed attention: {_USE_ANOTHER}")
    if not probe.windowed and any(reach.back < TOKENS - 1 for reach in packed.reach):
        raise UnsupportedModelError(f"{architecture} does not attend to all tokens of a text: {_USE_ANOTHER}")
    if probe.causal:
        earlier = slice(OWN.start, OWN.stop - 1)
        if any(reach.ahead for reach in packed.reach) or not _same(probe, packed, changed, earlier, limits):
            raise UnsupportedModelError(
                f"{architecture} does not run causally (its tokens attend to later ones): set attention to "
                "bidirectional or use another model"
            )
    # The first token's state need not move: with tiny weights or extreme scores, rounding hides the last token.
    elif any(reach.ahead < reach.back for reach in packed.reach):
        raise UnsupportedModelError(f"{causally}so set attention to causal or use another model")


def _same(probe: Probe, first: Trace, second: Trace, rows: slice, limits: list[float]) -> bool:
    """Whether the values at these positions are the same in two runs of the same shapes.

    The values are compared bit by bit. In two cases, a difference counts only if it exceeds the limits: if the device
    does not reproduce its own results, and if the model is a mixture whose experts multiply only the tokens that are
    routed to them, and cannot be made to multiply all tokens. The rounding of such experts depends on other sequences.
    """
    if not first.differs(second, rows):
        return True
    with fixed_shapes(probe.model) as exact:
        repeated = [probe.run(*trace.sequences) for _ in range(2) for trace in (first, second)]
        if not repeated[0].differs(repeated[1], rows):
            return True
        if exact and not any(repeated[i].differs(repeated[i + 2], rows) for i in range(2)):
            return False
    return not _exceeds(first.distances(second, rows), limits)


def _limits(probe: Probe, alone: Trace) -> list[float]:
    """For each layer, the largest distance that rounding explains."""
    least = _LEAST_NOISE * torch.finfo(probe.model.dtype).eps
    seeds = range(_SAMPLES_OF_MIXTURE if is_mixture(probe.model) else _SAMPLES)
    samples = [alone.distances(probe.run(*alone.sequences, noise=seed), _ALONE) for seed in seeds]
    return [_MAX_NOISE * max(least, *distances) for distances in zip(*samples, strict=True)]


def _exceeds(distances: list[float], limits: list[float]) -> bool:
    return any(distance > limit for distance, limit in zip(distances, limits, strict=True))


def _evidence(probe: Probe, distance: float, limit: float, effect: float) -> str:
    """The result of the checks: how far packing moves a text's states, compared with the effect of another token."""
    attention = "causal" if probe.causal else "bidirectional"
    dtype = str(probe.model.dtype).removeprefix("torch.")
    moved = f"rounding in {dtype} hides a text's tokens from each other"
    if effect:
        moved = (
            f"packing moves a text's states by {distance / effect:.1%} of what another token does, and rounding in "
            f"{dtype} explains up to {limit / effect:.1%}"
        )
    return f"attention: {attention} in every layer, without leaks between the sequences of a batch ({moved})"


def _check_finite(model: PreTrainedModel) -> None:
    """Checks all weights: a damaged row of the embeddings may belong to a token that the probes do not contain."""
    for name, weight in model.named_parameters():
        # If there is a NaN, `aminmax` returns it. Unlike `isfinite`, it needs no copy of the weight.
        if weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
            raise ModelError(
                f"{name} of {type(model).__name__} holds NaN or infinity: it is damaged or needs another dtype"
            )


@torch.inference_mode()
def verify_quantization(
    model: PreTrainedModel,
    quantize: Callable[[PreTrainedModel], None],
    dtype: DType,
    *,
    causal: bool = False,
    windowed: bool = False,
) -> str:
    """Quantizes a verified model to `dtype` and checks how that changes the model's results.

    A model passes if its hidden states keep their direction. A model that amplifies rounding, such as a random one,
    also passes if the product of each layer is right. The products before and after are compared for the same input, so
    that a layer's error does not depend on earlier layers.

    Args:
        model: the bare decoder.
        quantize: replaces the decoder's linear layers.
        dtype: the name of the dtype.
        causal, windowed: see `verify`.

    Returns:
        The evidence about the dtype: how far the hidden states move.

    Raises:
        UnsupportedModelError: if the device does not support the dtype, if the hidden states move too far, or if a
            sequence's states depend on its neighbours.
    """
    architecture = type(model).__name__
    probe = Probe(model, causal, windowed)
    own, left, right, other_left, other_right = probe.sequences(5)
    with recorded_products(model) as products:
        before = probe.run(own).states.float()
    try:
        quantize(model)
        # Libraries use different kernels for few and for many tokens.
        after = torch.stack([probe.run(*[own] * count).states[_ALONE].float() for count in (1, _MANY_PROBES)])
        errors = {n: largest_error(model.get_submodule(n), product, _MANY_PROBES) for n, product in products.items()}
        packed, beside_others = probe.run(left, own, right), probe.run(other_left, own, other_right)
    except UnsupportedModelError:
        raise
    except Exception as error:  # a library has no kernel for these sizes
        check_memory(error, model, model.device)
        raise UnsupportedModelError(f"{dtype} does not run on this device ({first_line(error)}): use auto") from error
    cosine = float(torch.cosine_similarity(before, after, dim=-1).min())
    layer = max(errors, key=lambda name: errors[name])
    if not after.isfinite().all() or not (cosine >= _MIN_COSINE or errors[layer] <= _MAX_ERROR):
        raise UnsupportedModelError(
            f"{dtype} changes the hidden states of {architecture} too much (cosine {cosine:.4f}, at least "
            f"{_MIN_COSINE} is required, and {layer} alone is off by {errors[layer]:.0%}): use another dtype"
        )
    if not _same(probe, packed, beside_others, OWN, [torch.inf] * len(packed.layers)):
        raise UnsupportedModelError(f"{architecture} in {dtype} {_MIXES}")
    sound = (
        ""
        if cosine >= _MIN_COSINE
        else f" (the model amplifies the error of each product, at most {errors[layer]:.1%})"
    )
    return f"{dtype}: hidden states have a cosine of at least {cosine:.4f} to those before quantization{sound}"
