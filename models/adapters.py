"""Merging LoRA adapters into the decoder, after checking that they fit and have an effect."""

import warnings
from pickle import UnpicklingError

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from transformers import PreTrainedModel

from l2v.models.errors import AdapterError, SourceError
from l2v.models.sources import Source


def merge(decoder: PreTrainedModel, source: Source) -> PreTrainedModel:
    """Merges one adapter, whose keys address the bare decoder (`base_model.model.layers.…`).

    Returns:
        The decoder with merged weights and without peft's layers.

    Raises:
        SourceError: if the adapter's files cannot be read.
        AdapterError: if its keys or shapes do not match the decoder's exactly, or if it has no effect.
    """
    weights = _read_weights(source)
    try:
        config = PeftConfig.from_pretrained(str(source.folder))
        config.inference_mode = True
        config.base_model_name_or_path = None  # peft would warn that the base, now a local folder, has another name
        config.task_type = None  # a task's own wrapper would not fit the bare decoder
        adapted = get_peft_model(decoder, config)
    except (ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
        raise AdapterError(f"adapter {source.name} does not fit {decoder.config.model_type}: {error}") from error
    _check_fit(source, weights, get_peft_model_state_dict(adapted, save_embedding_layers=False))
    _check_effect(source, weights, config)
    set_peft_model_state_dict(adapted, weights)
    with warnings.catch_warnings():
        # The warning concerns a language-modelling head that shares the embeddings; the bare decoder has none.
        warnings.filterwarnings("ignore", "Model with `tie_word_embeddings=True`", UserWarning)
        merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=False)
    # If this flag stayed set, `save_pretrained` would save an adapter instead of the model.
    merged._hf_peft_config_loaded = False  # noqa: SLF001
    return merged


def _read_weights(source: Source) -> dict[str, torch.Tensor]:
    if not any((source.folder / f"adapter_model.{suffix}").is_file() for suffix in ("safetensors", "bin")):
        raise SourceError(f"adapter {source.name} has no weights: {source.folder} holds no adapter_model.safetensors")
    try:
        # peft reads .bin files with weights_only=True, which never runs a pickle's code.
        weights: dict[str, torch.Tensor] = load_peft_weights(str(source.folder), device="cpu")
    except UnpicklingError as error:
        raise SourceError(f"the weights of adapter {source.name} contain code, which is never loaded") from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise SourceError(f"the weights of adapter {source.name} are damaged ({error}): download them again") from error
    return weights


def _check_fit(source: Source, weights: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    unmatched = sorted(weights.keys() ^ expected.keys())
    if unmatched:
        hint = " (it was trained on a ForCausalLM model: strip one `model.` from its keys)" * any(
            key.startswith("base_model.model.model.") for key in weights
        )
        raise AdapterError(
            f"adapter {source.name} does not fit the model: {len(unmatched)} keys do not match, for example "
            f"{unmatched[0]}{hint}; check that it belongs to this base model"
        )
    for key, weight in weights.items():
        if weight.shape != expected[key].shape:
            raise AdapterError(
                f"adapter {source.name} does not fit the model: {key} has shape {list(weight.shape)}, the model "
                f"requires {list(expected[key].shape)}; check that it belongs to this base model"
            )


def _check_effect(source: Source, weights: dict[str, torch.Tensor], config: PeftConfig) -> None:
    if not all(weight.isfinite().all() for weight in weights.values()):
        raise AdapterError(f"adapter {source.name} holds NaN or infinity: its weights are damaged")
    # The change of a weight is the product of two factors and lora_alpha: if one is zero, so is the change.
    effective = any(
        weight.any() and weights.get(key.replace("lora_B", "lora_A"), weight).any()
        for key, weight in weights.items()
        if "lora_A" not in key
    )
    if not effective or not getattr(config, "lora_alpha", 1):
        raise AdapterError(
            f"adapter {source.name} has no effect (a factor of its change is zero): check that it was trained"
        )
