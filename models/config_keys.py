"""Reads the keys of config.json that do not describe the network: attention, pooling and Matryoshka sizes."""

from l2v.models.errors import SourceError, UnsupportedModelError
from l2v.models.native_types import Config, native_type, remote_code
from l2v.models.sources import Source
from l2v.models.types import Attention

FILE = "config.json"
# The values of the key `pooling` in NVIDIA's code, and the pooling modes that they stand for.
_POOLINGS = {"avg": "mean", "mean": "mean", "last": "last_token", "cls": "bos_token"}


def attention_of(config: Config, base: Source) -> Attention | None:
    """The attention that a published config.json declares, by a key or by its type; None if no attention is declared.

    This function honours `use_bidirectional_attention` for every type, although most model classes of transformers
    ignore this key.

    Raises:
        SourceError: if a key has an invalid value.
        UnsupportedModelError: if the repository has its own code, which is never run, and declares no attention.
    """
    both_ways, causal = config.get("use_bidirectional_attention"), config.get("is_causal")
    # Multimodal types have the value `all`, or `vision` if attention between text tokens stays causal.
    if not isinstance(both_ways, bool | None) and both_ways not in ("all", "vision"):
        raise SourceError(
            f"{FILE} of {base.name} has use_bidirectional_attention = {both_ways!r}, which is not a valid value: set "
            "attention to bidirectional or causal"
        )
    if not isinstance(causal, bool | None):
        raise SourceError(
            f"{FILE} of {base.name} has is_causal = {causal!r}, which is not a valid value: set attention to "
            "bidirectional or causal"
        )
    if both_ways in (True, "all") or causal is False:
        return "bidirectional"
    if causal:
        return "causal"
    if native_type(config):
        return "bidirectional"
    if both_ways is not None:
        return "causal"
    if code := remote_code(config):
        raise UnsupportedModelError(
            f"{FILE} of {base.name} names its own code ({code}), which is never run, and declares no "
            "attention: set attention to bidirectional or causal, as the model card describes it"
        )
    return None


def has_bidirectional_windows(config: Config) -> bool:
    """Whether the model has the bidirectional sliding windows of Gemma 3: half the width to each side."""
    return config.get("model_type") == "gemma3_text" and config.get("use_bidirectional_attention") is True


def pooling_of(config: Config, base: Source) -> str | None:
    """The pooling that config.json declares for its publisher's code; None if no pooling is declared."""
    native = native_type(config)
    word = config.get("pooling") or (native.pooling if native else "")
    if not word:
        return None
    if word not in _POOLINGS:
        raise UnsupportedModelError(
            f"{FILE} of {base.name} has the pooling {word} (not one of {', '.join(_POOLINGS)}): set semantics to "
            "llm2vec to ignore it"
        )
    return _POOLINGS[word]


def matryoshka_of(config: Config, base: Source) -> tuple[int, ...] | None:
    """The sizes in `matryoshka_dimensions`, ascending; None if the key is absent."""
    sizes = config.get("matryoshka_dimensions")
    if sizes is None:
        return None
    if not isinstance(sizes, list) or not sizes or not all(type(size) is int and size > 0 for size in sizes):
        raise SourceError(f"{FILE} of {base.name} has matryoshka_dimensions = {sizes!r}, which is not a list of sizes")
    return tuple(sorted(sizes))
