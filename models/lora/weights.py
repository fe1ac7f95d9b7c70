"""Reads the weights of a LoRA module, and refuses a module that cannot be applied without merging."""

import copy
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import Linear as LoraLinear
from transformers import PreTrainedModel

from l2v.models.adapter_config import read_config
from l2v.models.adapter_weights import PREFIX, AdapterWeights, read_weights
from l2v.models.adapters import attach, check_finite, check_fit, has_effect, is_plain
from l2v.models.errors import AdapterError
from l2v.models.lora.storage import Factors
from l2v.models.sources import Source

# Initializations that leave the base's weights as they are. Others, such as PiSSA, change them.
_INITIAL = (True, False, "gaussian", "orthogonal", "eva")
_MERGE = "merge it instead (`adapters`), in a separate service"


def read_factors(
    source: Source, decoder: PreTrainedModel, ignore: Sequence[str] = ()
) -> tuple[dict[str, Factors], list[str]]:
    """Reads a LoRA module.

    Args:
        source: the module.
        decoder: the bare decoder, which is not changed; its layers may be quantized.
        ignore: patterns of the names of the module's tensors to leave out.

    Returns:
        The factors by the name of the decoder's linear layer, and a readable list of the tensors that were left out.

    Raises:
        SourceError: if the files cannot be read.
        AdapterError: if the module is of a kind that must be merged, does not fit the decoder, or has no effect.
    """
    config = read_config(source)
    _check_settings(source, config)
    skeleton = _skeleton(decoder)
    read = read_weights(source, skeleton, ignore)
    _check_tensors(source, read)
    check_finite(source, read.weights)
    adapted = attach(skeleton, source, config, read)
    check_fit(source, read.weights, adapted)
    if not has_effect(config, read.weights, adapted):
        raise AdapterError(f"adapter {source.name} has no effect (its change is zero): check that it was trained")
    inner = adapted.base_model.model.get_submodule(read.path)
    layers = {name: layer for name, layer in inner.named_modules() if hasattr(layer, "base_layer")}
    if other := next((name for name, layer in layers.items() if type(layer) is not LoraLinear), None):
        raise _refusal(source, f"changes {other}, which is not a linear layer")
    if special := next((name for name, layer in layers.items() if not is_plain(layer)), None):
        raise _refusal(source, f"changes {special} by more than the product of two factors")
    place = f"{PREFIX}{read.path}.".replace("..", ".")
    factors = {
        name: Factors(
            read.weights[f"{place}{name}.lora_A.weight"],
            read.weights[f"{place}{name}.lora_B.weight"],
            next(iter(layer.scaling.values())),
        )
        for name, layer in layers.items()
    }
    return factors, read.left_out


def _check_settings(source: Source, config: PeftConfig) -> None:
    if type(config) is not LoraConfig:
        raise _refusal(source, f"is of kind {getattr(config.peft_type, 'value', config.peft_type)}")
    if config.use_dora:
        raise _refusal(source, "is a DoRA adapter (use_dora), whose change depends on the base's weights")
    if config.target_parameters:
        raise _refusal(source, f"changes {config.target_parameters[0]} (target_parameters), not a linear layer")
    if config.trainable_token_indices:
        raise _refusal(source, "changes embeddings of tokens (trainable_token_indices)")
    if config.bias != "none" or config.lora_bias:
        raise _refusal(source, f"changes biases ({'lora_bias' if config.lora_bias else f'bias {config.bias}'})")
    if config.init_lora_weights not in _INITIAL:
        raise _refusal(source, f"changes the base's weights as well (init_lora_weights {config.init_lora_weights})")


def _check_tensors(source: Source, read: AdapterWeights) -> None:
    """Refuses tensors that are not factors of linear layers."""
    if embedding := min((key for key in read.weights if "lora_embedding_" in key), default=None):
        raise _refusal(source, f"changes embeddings ({embedding})")
    if magnitude := min((key for key in read.weights if "lora_magnitude_vector" in key), default=None):
        raise _refusal(source, f"is a DoRA adapter ({magnitude}), whose change depends on the base's weights")
    factors = (".lora_A.weight", ".lora_B.weight")
    if whole := min((key for key in read.weights if not key.endswith(factors)), default=None):
        raise _refusal(source, f"holds the whole tensor {whole} (modules_to_save)")


def _refusal(source: Source, reason: str) -> AdapterError:
    return AdapterError(f"adapter {source.name} {reason}: it cannot be applied without merging; {_MERGE}")


def _skeleton(decoder: PreTrainedModel) -> PreTrainedModel:
    """The decoder's layers without weights, in the classes that peft supports."""
    with torch.device("meta"):
        skeleton: PreTrainedModel = type(decoder)(copy.deepcopy(decoder.config))
    return skeleton
