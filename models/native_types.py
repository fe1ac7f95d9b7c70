"""Model types that are published with their own code, but have the same network as a type that transformers knows.

l2v never runs the publisher's code. A `NativeType` names the type that transformers knows, and says what else the
publisher's code does.
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
        config: keys to add to config.json.
        pooling: the pooling that the publisher's code applies if config.json names none; "" if the code has no default.
        projection: the tensor with which the publisher's code projects every token's state; "" if it does not project.
    """

    model_type: str
    config: Config
    pooling: str = ""
    projection: str = ""


def native_type(config: Config) -> NativeType | None:
    """The stand-in for the type that a published config.json names; None if the type needs no stand-in or is unknown.

    These published types attend bidirectionally, unless config.json sets `is_causal: true`.
    """
    match config.get("model_type"):
        case "llama_bidirec":
            return NativeType("llama", {}, pooling="avg")
        case "bidirectional_pplx_qwen3":
            return NativeType("qwen3", {})
        case "bidirlm" if "query_pre_attn_scalar" in config or "hidden_activation" in config:
            # We do not know whether BidirLM's code halves the window, as Gemma 3's code does. It makes no difference:
            # `check_window` limits max_length to half the window, so even a halved window hides no token.
            return NativeType("gemma3_text", {"use_bidirectional_attention": True})
        case "bidirlm":
            return NativeType("qwen3", {})
        case "qwen3" if remote_code(config) == "Qwen3BidirectionalModel":
            return NativeType("qwen3", {}, projection="linear.weight")
    return None


def native_config(config: Config) -> Config:
    """The content of config.json, with a published type replaced by its stand-in, if it has one."""
    native = native_type(config)
    if native is None:
        return config
    kept = {name: value for name, value in config.items() if name not in _DROPPED}
    return kept | native.config | {"model_type": native.model_type}


def remote_code(config: Config) -> str:
    """The class that config.json names for the bare decoder in the publisher's own code; "" if it names none."""
    named = config.get("auto_map")
    code = named.get("AutoModel") if isinstance(named, dict) else None
    return code.rpartition(".")[2] if isinstance(code, str) else ""
