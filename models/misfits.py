"""Tensors that do not fit a model: which of them an encoder does not need, and why the others do not fit."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from transformers import PreTrainedConfig, PreTrainedModel

# Tensors that no encoder needs.
_LEFT_OUT = (
    r"(^|\.)lm_head\.|^embed_out\.",
    r"(^|\.)rotary_emb\.(inv_freq|cos_cached|sin_cached)$|(^|\.)position_ids$",
    r"^(model\.)?(visual|vision_tower|vision_model|multi_modal_projector|mm_projector|embed_vision)\.",
    r"^(model\.)?(audio_tower|embed_audio)\.",
    r"^(model\.)?mtp\.",
    r"\.(k|v)_scale$|\.(k|v)_proj\.output_scale$",  # scales of a quantized key-value cache
    r"^v_head\.",  # the value head that reinforcement learning adds
)
# Patterns of the tensors of a classification head, by a part of the class name in the config's `architectures`.
_HEADS = {"SequenceClassification": r"^score\.", "TokenClassification": r"^(score|classifier)\."}
# Parts that training tools add to tensor names, at the start or in the middle.
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
    first = config.num_hidden_layers
    predicts = first <= _layer_of(name) < first + _extra_layers(config)
    return predicts or any(re.search(pattern, name) for pattern in (*_LEFT_OUT, *heads, *more))


def is_ignored(name: str, patterns: Sequence[str]) -> bool:
    """Whether the setting `ignore_tensors` names a tensor."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def summary(names: Iterable[str]) -> list[str]:
    """A readable list of names, in which names that differ only in a number become one entry."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names})


def count(names: Collection[str], noun: str = "tensor") -> str:
    """The number of names with a noun, like `3 tensors`."""
    return f"{len(names)} {noun}{'' if len(names) == 1 else 's'}"


def _layer_of(name: str) -> int:
    """The index of the layer that a tensor belongs to; -1 if the tensor belongs to no layer."""
    found = _LAYER.search(name)
    return int(found[1]) if found else -1


def _extra_layers(config: PreTrainedConfig) -> int:
    """The number of layers after the decoder's own layers. They predict further tokens (multi-token prediction)."""
    layers = getattr(config, "num_nextn_predict_layers", 0) or 0
    return layers if isinstance(layers, int) else 0


def unexpected_cause(name: str, names: Collection[str], decoder: PreTrainedModel) -> str:
    """Why the decoder probably has no place for a tensor, and what to do, as the end of a sentence.

    Args:
        name: the tensor's name.
        names: the names of all tensors in the files.
        decoder: the decoder. Only its config and the names of its tensors are used, so it may be on the meta device.
    """
    config = decoder.config
    if wrapped := _wrapper_cause(names, decoder):
        return wrapped
    if lora := next(filter(_LORA.search, names), ""):
        return f"{lora} belongs to an adapter that was not merged; merge it with peft's merge_and_unload and save again"
    if _layer_of(name) >= config.num_hidden_layers:
        return (
            f"config.json has num_hidden_layers = {config.num_hidden_layers}, but the weights have more layers; "
            "correct the one that is wrong"
        )
    if name.endswith(".bias"):
        switches = [f"{key} = {value}" for key, value in config.to_dict().items() if key.endswith("bias") and not value]
        declared = f" ({', '.join(switches)})" if switches else ""
        return (
            f"config.json declares no such bias{declared}; correct config.json, or set ignore_tensors to leave the "
            "biases out"
        )
    return "it belongs to another model class; correct model_type in config.json, or set ignore_tensors to leave it out"


def missing_cause(name: str, names: Collection[str], decoder: PreTrainedModel) -> str:
    """Why the files probably lack a tensor that the decoder needs, and what to do; see `unexpected_cause`."""
    if wrapped := _wrapper_cause(names, decoder):
        return wrapped
    if _layer_of(name) > (last := max(map(_layer_of, names), default=-1)):
        return (
            f"config.json has num_hidden_layers = {decoder.config.num_hidden_layers}, but the weights have {last + 1} "
            "layers; correct the one that is wrong"
        )
    if name.endswith(".bias"):
        return (
            "config.json has the wrong model_type, or declares biases that the weights do not have; correct config.json"
        )
    return (
        "config.json has the wrong model_type, or the files do not hold the whole model; correct config.json, or add "
        "the missing files"
    )


def shape_cause(held: Sequence[int], required: Sequence[int], config: PreTrainedConfig) -> str:
    """The shape that the config requires, and the fields of the config whose value is one of its sizes."""
    # `type` rather than `isinstance`, to leave out booleans.
    values = {key: value for key, value in config.to_dict().items() if type(value) is int}
    sizes = [size for size in required if size not in held]
    fields = [f"{key} = {value}" for key, value in values.items() if value in sizes and not key.endswith("_id")]
    return f"shape {list(required)}" + (f" ({', '.join(fields)})" if fields else "")


def _wrapper_cause(names: Collection[str], decoder: PreTrainedModel) -> str:
    if part := _wrapper(names, decoder):
        return f"the tensor names contain `{part}`, which the decoder does not expect; save the model again without it"
    return ""


def _wrapper(names: Collection[str], decoder: PreTrainedModel) -> str:
    """The part, such as `module.`, that most tensor names contain but the decoder does not; "" if there is none."""
    for part in WRAPPERS:
        # The added dots let the part match at the start of a name too, but not in the middle of a word.
        matching = sum(f".{part}" in f".{name}" for name in names)
        if 2 * matching > len(names):
            return part
    expected = decoder.state_dict().keys()
    prefixes = Counter(prefix for name in names if (prefix := _prefix(name, expected)) is not None)
    if not prefixes:
        return ""
    common, frequency = prefixes.most_common(1)[0]
    is_normal = common in ("", f"{decoder.base_model_prefix}.")
    return "" if is_normal or 2 * frequency <= len(names) else common


def _prefix(name: str, expected: Collection[str]) -> str | None:
    """What precedes the decoder's tensor name in `name`, like `llm.` in `llm.norm.weight`.

    Finds the longest ending of `name` that is in `expected`, and returns the part before it; None if there is no such
    ending.
    """
    parts = name.split(".")
    found = (index for index in range(len(parts)) if ".".join(parts[index:]) in expected)
    index = next(found, None)
    return None if index is None else "".join(f"{part}." for part in parts[:index])
