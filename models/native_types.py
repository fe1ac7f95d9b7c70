"""Model types that are published with their own code, but have the same network as a type that transformers knows.

Their code is never run. Each entry says which native type the weights belong to, and how its publisher's code differs.
"""

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

# Keys of config.json that name the publisher's code or belong to it alone.
_DROPPED = ("auto_map", "architectures", "pooling", "temperature", "classifier_pooling", "num_labels")


@dataclass(frozen=True, slots=True)
class NativeType:
    """The native type that stands in for a published type.

    Attributes:
        model_type: the type that transformers knows.
        config: keys to add to its config.
        pooling: the pooling that the publisher's code applies if config.json names none; "" if it has none.
        projection: the tensor with which that code projects every token's state; "" if there is none.
    """

    model_type: str
    config: Config
    pooling: str = ""
    projection: str = ""


def native_type(config: Config) -> NativeType | None:
    """The stand-in for the type that a published config.json names; None if that type needs none or is unknown.

    These published types attend bidirectionally, unless config.json sets `is_causal: true`.
    """
    match config.get("model_type"):
        case "llama_bidirec":
            return NativeType("llama", {}, pooling="avg")
        case "bidirectional_pplx_qwen3":
            return NativeType("qwen3", {})
        case "bidirlm" if "query_pre_attn_scalar" in config or "hidden_activation" in config:
            # We do not know whether its code halves the window, as Gemma 3 does. Half the window is safe in both cases.
            return NativeType("gemma3_text", {"use_bidirectional_attention": True})
        case "bidirlm":
            return NativeType("qwen3", {})
        case "qwen3" if remote_code(config) == "Qwen3BidirectionalModel":
            return NativeType("qwen3", {}, projection="linear.weight")
    return None


def native_config(config: Config) -> Config:
    """The content of config.json with a published type replaced by its stand-in; unchanged if there is none."""
    native = native_type(config)
    if native is None:
        return config
    kept = {name: value for name, value in config.items() if name not in _DROPPED}
    return kept | native.config | {"model_type": native.model_type}


def remote_code(config: Config) -> str:
    """The class of the code that config.json names for the bare decoder; "" if it names none."""
    named = config.get("auto_map")
    code = named.get("AutoModel") if isinstance(named, dict) else None
    return code.rpartition(".")[2] if isinstance(code, str) else ""
