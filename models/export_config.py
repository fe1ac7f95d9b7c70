"""The config.json of an export: the decoder's own config, in a form that most libraries read correctly."""

from typing import Any

from transformers import PreTrainedConfig

from l2v.models.config_values import faults
from l2v.models.decoder import build_config
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError

_WINDOW, _BOTH_WAYS = "sliding_window", "use_bidirectional_attention"


def export_config(encoder: Encoder, content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of the export's config.json, which declares the attention and the base model.

    The base model determines the template. transformers, vLLM and TEI read `is_causal` for most types, and
    `use_bidirectional_attention` for Gemma.

    Args:
        encoder: the encoder.
        content: the content of the config.json that transformers writes.

    Raises:
        ModelError: if transformers builds a different network from the result.
    """
    config, declared = encoder.model.config, encoder.declaration
    matryoshka = declared.matryoshka_dimensions.value
    content = content | {"_name_or_path": encoder.base, "is_causal": encoder.causal}
    content[_BOTH_WAYS] = _both_ways(config, causal=encoder.causal)
    if declared.windowed and not encoder.causal:
        del content["is_causal"]  # with both keys, Gemma's windows would be wider by a token
    if matryoshka:
        content["matryoshka_dimensions"] = list(matryoshka)
    elif declared.truncate_dim.value:
        content["is_matryoshka"] = True  # otherwise, vLLM refuses `dimensions`
    window = getattr(config, _WINDOW, None)
    if window and not declared.windowed:
        window = max(window, encoder.max_length)  # at least the longest input, since LLM2Vec ignores the window
        content[_WINDOW] = window
    if window and _read(content, _WINDOW) != window:
        content[_WINDOW] = 2 * (window - 1)  # for bidirectional attention, Gemma 3's config class halves the value
    former = _former_rope(content)
    if _read(former, "rope_parameters") == _read(content, "rope_parameters"):
        content = former
    for name, value in ((_WINDOW, window), ("rope_parameters", getattr(config, "rope_parameters", None))):
        if (read := _read(content, name)) != value:
            raise ModelError(
                f"{config.model_type} cannot be exported: transformers would read {name} = {read} from its "
                f"config.json, but this model uses {value}"
            )
    return content


def _both_ways(config: PreTrainedConfig, *, causal: bool) -> object:
    """The value of `use_bidirectional_attention`: a boolean; `all` or null for types that accept no boolean."""
    for value in (not causal, None if causal else "all"):
        if not any(faults({_BOTH_WAYS: value}, type(config))):
            return value
    return None


def _read(content: dict[str, Any], name: str) -> object:
    """What transformers reads from a config.json."""
    return getattr(build_config("the export", content), name, None)


def _former_rope(content: dict[str, Any]) -> dict[str, Any]:
    """Converts the settings of the rotary embeddings to transformers 4's format, which TEI reads too."""
    rope = content.get("rope_parameters")
    if not isinstance(rope, dict):
        return content
    kept = {name: value for name, value in content.items() if name != "rope_parameters"}
    whole, local = rope.get("full_attention", rope), rope.get("sliding_attention", {})
    scaling = {name: value for name, value in whole.items() if name != "rope_theta"}
    kept["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
    kept |= {"rope_theta": whole["rope_theta"]} if "rope_theta" in whole else {}
    return kept | ({"rope_local_base_freq": local["rope_theta"]} if "rope_theta" in local else {})
