"""Tensors that do not fit a model: which of them an encoder does not need, and why the others do not fit."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from transformers import PreTrainedConfig, PreTrainedModel

# Tensors that no encoder needs.
_LEFT_OUT = (
    r"(^|\.)lm_head\.|^embed_out\.",
    r"(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$|(^|\.)position_ids$",
    r"^(model\.)?(visual|vision_tower|vision_model|multi_modal_projector|mm_projector|embed_vision)\.",
    r"^(model\.)?(audio_tower|embed_audio)\.",
    r"^(model\.)?mtp\.",
    r"\.(k|v)_scale$|\.(k|v)_proj\.output_scale$",  # of a quantized key-value cache
    r"^v_head\.",  # of reinforcement learning
)
# Heads, by the class in `architectures`.
_HEADS = {"SequenceClassification": r"^score\.", "TokenClassification": r"^(score|classifier)\."}
# Tensors that only the formats of quantized weights have.
_QUANTIZED = re.compile(
    r"[.:](qweight|qzeros|scales|g_idx|qdata|weight_scale(_inv|_2)?|weight_(packed|shape|zero_point|global_scale)"
    r"|input_(scale|global_scale|zero_point)|absmax|nested_absmax|quant_map|nested_quant_map|SCB|weight_format|W_q"
    r"|q_weight|q_scale|Qidxs|trellis|codebooks)$|\.quant_state\.|_proj_(blocks|scales)$|\.(w[123]|experts)_scales?$"
)
# Keys of config.json that mark quantized weights.
MARKS = ("quantization_config", "quantization")
_FULL_PRECISION = {"F64", "F32", "F16", "BF16"}
# What training tools insert into the names of tensors, at the start or further inside.
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.", "module.")
_LORA = re.compile(r"lora_|\.base_layer\.|modules_to_save")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def left_out(name: str, config: PreTrainedConfig, more: Iterable[str] = ()) -> bool:
    """Whether an encoder does not need a tensor.

    Args:
        name: the tensor's name in the file.
        config: the decoder's config.
        more: regular expressions for the tensors that the decoder's class leaves out.
    """
    architectures = str(getattr(config, "architectures", None))
    heads = [pattern for head, pattern in _HEADS.items() if head in architectures]
    prediction = layer_of(name) >= config.num_hidden_layers > layer_of(name) - _extra_layers(config)
    return prediction or any(re.search(pattern, name) for pattern in (*_LEFT_OUT, *heads, *more))


def named(name: str, patterns: Sequence[str]) -> bool:
    """Whether the setting `ignore_tensors` names a tensor."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def summary(names: Iterable[str]) -> list[str]:
    """A readable list of names, in which names that differ only in a number become one entry."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names})


def count(names: Collection[str], noun: str = "tensor") -> str:
    return f"{len(names)} {noun}{'s' * (len(names) > 1)}"


def layer_of(name: str) -> int:
    """The index of the layer that a tensor belongs to; -1 if the tensor belongs to no layer."""
    found = _LAYER.search(name)
    return int(found[1]) if found else -1


def _extra_layers(config: PreTrainedConfig) -> int:
    """The number of extra layers at the end, which predict further tokens."""
    count = getattr(config, "num_nextn_predict_layers", 0) or 0
    return count if isinstance(count, int) else 0


def quantized(dtypes: Mapping[str, str]) -> str:
    """The first tensor that shows that the weights are quantized; "" if the weights have full precision."""
    for name, dtype in dtypes.items():
        if _QUANTIZED.search(name) or (name.endswith("weight") and dtype not in _FULL_PRECISION):
            return name
    return ""


def quantization(name: str, mark: object, dtypes: Mapping[str, str]) -> str:
    """The reason why quantized weights cannot be served; "" if the weights have full precision.

    Args:
        name: the base's name.
        mark: the `quantization_config` of the base's config.json; None if it has none.
        dtypes: the dtypes of the base's tensors, named as in safetensors.
    """
    if not (sign := quantized(dtypes)):
        return ""
    method = quantization_method(mark) if mark else "no quantization_config"
    return (
        f"the weights of {name} are quantized ({method}; for example {sign} of type {dtypes[sign]}): serve "
        "the original full-precision model instead; to quantize it while loading, set dtype to int8 or fp8"
    )


def quantization_method(mark: object) -> str:
    known = mark if isinstance(mark, dict) else {}
    return str(known.get("quant_method") or (f"{known['bits']} bits" if known.get("bits") else "unknown method"))


def unexpected_cause(name: str, names: Collection[str], decoder: PreTrainedModel) -> str:
    """Why the decoder probably has no place for a tensor, and what to do, as the end of a sentence.

    Args:
        name: the tensor.
        names: all tensors of the files.
        decoder: the decoder, on any device.
    """
    config = decoder.config
    if prefix := wrapper(names, decoder):
        return f"the names have the prefix `{prefix}`; save the model again without it"
    if lora := next(filter(_LORA.search, names), ""):
        return f"{lora} belongs to an adapter that was not merged; merge it with peft's merge_and_unload and save again"
    if layer_of(name) >= config.num_hidden_layers:
        return (
            f"config.json has num_hidden_layers = {config.num_hidden_layers}, but the weights have more layers; "
            "correct the one that is wrong"
        )
    if name.endswith(".bias"):
        switches = [f"{key} = {value}" for key, value in config.to_dict().items() if key.endswith("bias")]
        return (
            f"config.json switches biases off ({', '.join(switches) or 'by its model_type'}); correct it, or set "
            "ignore_tensors to leave them out"
        )
    return "it belongs to another model class; correct model_type in config.json, or set ignore_tensors to leave it out"


def missing_cause(name: str, names: Collection[str], decoder: PreTrainedModel) -> str:
    """Why the files probably lack a tensor that the decoder needs, and what to do; see `unexpected_cause`."""
    if prefix := wrapper(names, decoder):
        return f"the names have the prefix `{prefix}`; save the model again without it"
    if layer_of(name) > (last := max(map(layer_of, names), default=-1)):
        return (
            f"config.json has num_hidden_layers = {decoder.config.num_hidden_layers}, but the weights have {last + 1} "
            "layers; correct the one that is wrong"
        )
    if name.endswith(".bias"):
        return "config.json has the wrong model_type, or declares biases that the weights do not have"
    return "config.json has the wrong model_type, or the files do not hold the whole model"


def shape_cause(held: Sequence[int], required: Sequence[int], config: PreTrainedConfig) -> str:
    """The shape that the config requires, and the fields that require it."""
    values = {key: value for key, value in config.to_dict().items() if type(value) is int}
    sizes = [size for size in required if size not in held]
    fields = [f"{key} = {value}" for key, value in values.items() if value in sizes and not key.endswith("_id")]
    return f"shape {list(required)}" + (f" ({', '.join(fields)})" if fields else "")


def wrapper(names: Collection[str], decoder: PreTrainedModel) -> str:
    """What a training tool inserted into most names, at the start or further inside; "" if nothing was inserted."""
    for infix in WRAPPERS:
        if 2 * sum(f".{infix}" in f".{name}" for name in names) > len(names):
            return infix
    expected = decoder.state_dict().keys()
    prefixes = Counter(prefix for name in names if (prefix := _prefix(name, expected)) is not None)
    common, count = (prefixes.most_common(1) or [("", 0)])[0]
    return common if 2 * count > len(names) and common not in ("", f"{decoder.base_model_prefix}.") else ""


def _prefix(name: str, expected: Collection[str]) -> str | None:
    """The part of `name` before its longest ending that is in `expected`; None if no ending is in `expected`."""
    parts = name.split(".")
    found = (index for index in range(len(parts)) if ".".join(parts[index:]) in expected)
    index = next(found, None)
    return None if index is None else "".join(f"{part}." for part in parts[:index])
