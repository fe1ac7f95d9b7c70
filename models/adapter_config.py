"""Reads adapter_config.json, and refuses adapters whose kind or settings cannot be merged into weights."""

import json
import math
from dataclasses import MISSING, Field, fields
from typing import Any

from peft import PEFT_TYPE_TO_CONFIG_MAPPING, LoraConfig, PeftConfig, PeftType, PromptLearningConfig
from peft import __version__ as peft_version
from peft.utils.constants import INCLUDE_LINEAR_LAYERS_SHORTHAND

from l2v.models.errors import AdapterError, first_line
from l2v.models.sources import Source

# The kinds whose merged weights give the same results as peft's forward pass; a test checks each.
KINDS = ("LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "HRA", "LN_TUNING", "TRAINABLE_TOKENS")
# LoRA settings that merging honours or that affect only training. Any other setting must have its default value.
_CARRIED = {
    *("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters"),
    *("modules_to_save", "trainable_token_indices", "init_lora_weights", "lora_bias"),
    *("lora_dropout", "loftq_config", "eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying"),
    *("megatron_core", "qalora_group_size", "runtime_config"),
    *(field.name for field in fields(PeftConfig)),
}
_NUMBER = (int, float)
_TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "r": ((int,), "an integer"),
    "lora_alpha": (_NUMBER, "a number"),
    "lora_dropout": (_NUMBER, "a number"),
    "target_modules": ((list, str), "a list or text"),
    "modules_to_save": ((list,), "a list"),
    "layers_to_transform": ((list, int), "a list or an integer"),
    "rank_pattern": ((dict,), "an object"),
    "alpha_pattern": ((dict,), "an object"),
    "bias": ((str,), "text"),
    **dict.fromkeys(("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias"), ((bool,), "true or false")),
}
_PROMPTS = "it adds vectors to the input or the attention instead of changing weights"


def read_config(source: Source) -> PeftConfig:
    """Reads an adapter's settings, and checks that the adapter can be merged.

    Raises:
        SourceError: if the file is damaged.
        AdapterError: if the kind or a setting cannot be merged; the message says which.
    """
    content = source.read("adapter_config.json")
    kind = content.get("peft_type")
    if kind is None:
        raise AdapterError(
            f"adapter {source.name} is not in peft's format (adapter_config.json names no peft_type): convert it, or "
            "merge it with the tool that trained it and serve the merged model"
        )
    if kind not in KINDS:
        known = kind in set(PeftType)
        prompt = known and issubclass(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)], PromptLearningConfig)
        reason = _PROMPTS if prompt else "it cannot be merged into weights" if known else "peft does not know it"
        raise AdapterError(
            f"adapter {source.name} is of kind {kind}, which is not supported: {reason}; use one of {', '.join(KINDS)}"
        )
    kind_config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]
    known_settings = {field.name: field for field in fields(kind_config)}
    for name, value in content.items():
        if name not in known_settings and value:
            raise AdapterError(
                f"adapter {source.name} sets {name} = {value!r}, which peft {peft_version} does not know: use the "
                "version of peft that trained the adapter, or remove the setting if it has no effect"
            )
    for name, (types, words) in _TYPES.items():
        value = content.get(name)
        infinite = type(value) is float and not math.isfinite(value)
        if value is not None and (type(value) not in types or infinite):
            raise AdapterError(
                f"adapter_config.json of {source.name} cannot be used: {name} is {json.dumps(value)}, but must be "
                f"{words}; correct it in a copy of the folder"
            )
    try:
        config = kind_config(**{name: value for name, value in content.items() if name in known_settings})
    except Exception as error:  # the config class's own checks can raise anything
        raise AdapterError(
            f"adapter_config.json of {source.name} cannot be used ({first_line(error)}): correct it in a copy of the "
            "folder"
        ) from error
    _check_settings(source, config)
    return config


def _check_settings(source: Source, config: PeftConfig) -> None:
    if type(config) is not LoraConfig:
        return
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in _CARRIED and value and value != _default(field):
            raise AdapterError(
                f"adapter {source.name} sets {field.name} = {value!r}, which cannot be merged into weights: train it "
                "without this setting"
            )


def _default(field: "Field[Any]") -> object:
    return field.default if field.default_factory is MISSING else field.default_factory()


def targets_all_linear(config: PeftConfig) -> bool:
    """Whether the adapter changes every linear layer."""
    targets = getattr(config, "target_modules", None)
    return isinstance(targets, str) and targets.lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND
