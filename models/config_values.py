"""Checks the values in a config.json. Names each invalid value before a model is built."""

import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

# Fields to drop: fields for other tasks, and fields whose value the loading code chooses.
_DROPPED = {"dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type", "transformers_version"}
# Fields without effect on the hidden states of an encoder. Their invalid values are dropped.
_DROPOUTS = {"attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"}
_WITHOUT_EFFECT = {
    *_DROPOUTS,
    *("use_cache", "initializer_range", "pretraining_tp", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "output_router_logits", "router_aux_loss_coef"),
}
# Minimum values.
_MINIMUM = {
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"), 1),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"), 1),
    **dict.fromkeys(("num_local_experts", "num_experts", "num_experts_per_tok"), 1),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), 0),
}
_ABOVE_ZERO = {"query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "rope_theta", "rotary_pct"}
# Maximum values. Larger models would take forever to build, even without weights.
_MAXIMUM = {"num_hidden_layers": 10_000, "hidden_size": 10**6, "head_dim": 10**6}
_ACTIVATIONS = {"hidden_act", "hidden_activation", "activation_function"}
_ROPE_NUMBERS = {
    *("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "partial_rotary_factor"),
    "original_max_position_embeddings",
}
_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "text", dict: "an object", list: "a list"}
_SHOWN = 60


def usable(content: dict[str, Any], kind: type[PreTrainedConfig]) -> dict[str, Any]:
    """Drops fields that loading does not need and invalid values of fields without effect.

    Converts integers to floats where the class needs floats.
    """
    kept = {}
    for name, value in content.items():
        if name in _DROPPED or (name in _WITHOUT_EFFECT and _misfit(name, value, kind)):
            continue
        if value is None and name in _MINIMUM and not _declared(name, kind):
            continue
        if name in _DROPOUTS and not (isinstance(value, int | float) and 0 <= value < 1):
            continue
        whole = type(value) is int and _misfit(name, value, kind) and not _misfit(name, float(value), kind)
        kept[name] = float(value) if whole else value
    return kept


def faults(content: dict[str, Any], kind: type[PreTrainedConfig]) -> Iterator[str]:
    """Yields a clause for each invalid value, such as `hidden_size is 0, but must be at least 1`."""
    for name, value in content.items():
        fault = _misfit(name, value, kind)
        if not fault and name in _MINIMUM and type(value) not in (int, NoneType, *[float] * (_MINIMUM[name] == 0)):
            fault = _TYPES[int]  # a class may use a size without declaring its type
        if fault:
            yield _clause(name, value, f"must be {fault}")
        elif isinstance(value, int | float) and (fault := _outside(name, value)):
            yield _clause(name, value, fault)
        elif name in _ACTIVATIONS and isinstance(value, str) and value not in ACT2FN:
            yield _clause(name, value, "must be an activation that transformers knows")


def rope_faults(config: PreTrainedConfig) -> Iterator[str]:
    """Yields a clause for each invalid value of the rotary embeddings, whose types the classes do not declare."""
    declared = getattr(config, "rope_parameters", None) or {}
    # These lines replace transformers' `nested_rope_parameter_keys`, which release 5.17 lacks.
    kinds = getattr(config, "_rope_type_labels", None) or getattr(config, "layer_types", None) or ()
    layers = [key for key in declared if key in kinds] if isinstance(declared, dict) else []
    for parameters in [declared[layer] for layer in layers] or [declared]:
        if not isinstance(parameters, dict):
            yield _clause("rope_parameters", parameters, "must be an object")
            continue
        known = {"default", config.default_rope_type, *ROPE_INIT_FUNCTIONS}
        if (kind := parameters.get("rope_type", "default")) not in known:
            yield _clause("the type of rope_scaling", kind, f"must be one of {', '.join(sorted(known))}")
        for name in sorted(_ROPE_NUMBERS & parameters.keys()):
            value = parameters[name]
            if (value is None and name == "rope_theta") or not isinstance(value, int | float | None):
                yield _clause(name, value, "must be a number")
            elif value is not None and (isinstance(value, bool) or not 0 < value < math.inf):
                yield _clause(name, value, "must be a number above 0")


def _outside(name: str, value: float) -> str:
    """Why a number is out of range; "" if it is in range."""
    if not math.isfinite(value):
        return "must be a finite number"
    if value < _MINIMUM.get(name, value):
        return f"must be at least {_MINIMUM[name]}"
    if name in _ABOVE_ZERO and value <= 0:
        return "must be above 0"
    return f"must be at most {_MAXIMUM[name]}" if value > _MAXIMUM.get(name, value) else ""


def _clause(name: str, value: object, requirement: str) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    return f"{name} is {shown}, but {requirement}"


def _misfit(name: str, value: object, kind: type[PreTrainedConfig]) -> str:
    """The type that a value should have, in words; "" if the value has that type, or if no type is declared."""
    declared = _declared(name, kind)
    if declared is None:
        return ""
    try:
        for validate in kind.__validators__.get(kind.attribute_map.get(name, name), []):
            validate(value)
    except (TypeError, ValueError):
        return _describe(declared)
    leaves = list(_leaves(declared))
    return _describe(declared) if isinstance(value, bool) and bool not in leaves and Any not in leaves else ""


def _declared(name: str, kind: type[PreTrainedConfig]) -> Any:
    """The type that the class declares for a field; None if the class declares no type."""
    name = kind.attribute_map.get(name, name)
    return next((field.type for field in fields(kind) if field.name == name), None) if is_dataclass(kind) else None


def _leaves(declared: Any) -> Iterator[Any]:
    """The alternatives of a declared type."""
    if get_origin(declared) in (Union, UnionType):
        for part in get_args(declared):
            yield from _leaves(part)
    elif get_origin(declared) is Literal:
        yield from map(type, get_args(declared))
    else:
        yield get_origin(declared) or declared


def _describe(declared: Any) -> str:
    words = [_TYPES[leaf] for leaf in dict.fromkeys(_leaves(declared)) if leaf in _TYPES]
    if float in _leaves(declared) and int in _leaves(declared):
        words.remove(_TYPES[int])
    return " or ".join([*words, *["null"] * (NoneType in _leaves(declared))]) or f"of type {declared}"
