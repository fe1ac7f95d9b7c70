"""Checks of `max_length`: the model needs enough positions, and must embed a text the same in any batch."""

from transformers import PreTrainedConfig

from l2v.models.declaration import Declaration
from l2v.models.errors import ModelError, UnsupportedModelError


def check_max_length(config: PreTrainedConfig, declaration: Declaration) -> None:
    """Checks that the model supports inputs of `max_length` tokens.

    Raises:
        ModelError: if the model has fewer positions.
        UnsupportedModelError: if long texts change how short texts in the same batch are embedded.
    """
    max_length = declaration.max_length.value
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_length > positions:
        raise ModelError(
            f"max_length {max_length} ({declaration.max_length.origin}) exceeds the {positions} positions of the "
            f"model: set max_length to at most {positions}"
        )
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # Some architectures have parameters for each type of layer.
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = part.get("rope_type") or part.get("type")
        short = part.get("original_max_position_embeddings")
        short = short or getattr(config, "original_max_position_embeddings", None)
        if kind == "longrope" and short and max_length > short:
            # The longest text of a batch selects one of two sets of frequencies for the whole batch.
            raise UnsupportedModelError(
                f"{config.model_type} embeds short texts differently in a batch with long ones (longrope): max_length "
                f"{max_length} must not exceed {short}"
            )
    if config.model_type == "llama4_text" and getattr(config, "attn_temperature_tuning", False):
        # transformers counts a token's position from the start of the row, which holds several texts here.
        raise UnsupportedModelError(
            f"{config.model_type} scales attention by the position in the batch (attn_temperature_tuning): use another "
            "model"
        )


def check_window(config: PreTrainedConfig, declaration: Declaration) -> None:
    """Refuses a `max_length` beyond the model's window or chunk if packed attention does not apply it.

    With LLM2Vec's semantics, a model whose layers all have a window is accepted. Its window is ignored, as Mistral's is
    in the reference.
    """
    max_length, window = declaration.max_length.value, sliding_window(config)
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and max_length > chunk and "chunked_attention" in _layer_types(config):
        raise UnsupportedModelError(
            f"{config.model_type} has layers that attend within chunks of {chunk} tokens, which l2v does not support: "
            f"set max_length to at most {chunk}"
        )
    if not window or max_length <= window or declaration.windowed:
        return
    cleared = declaration.semantics.value == "llm2vec" and len(_layer_types(config)) == 1
    if not cleared:
        raise UnsupportedModelError(
            f"{config.model_type} has layers of sliding-window attention, which l2v does not compute in both "
            f"directions: max_length {max_length} ({declaration.max_length.origin}) must not exceed its window of "
            f"{window}, so set max_length to at most {window}"
        )


def sliding_window(config: PreTrainedConfig) -> int | None:
    """The width of the model's sliding window; None if no layer has a window."""
    return getattr(config, "sliding_window", None) if "sliding_attention" in _layer_types(config) else None


def _layer_types(config: PreTrainedConfig) -> set[str]:
    return set(getattr(config, "layer_types", None) or ["sliding_attention"])
