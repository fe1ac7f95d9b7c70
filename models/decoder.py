"""Reads the base's config, and loads its weights into a bare decoder with packed attention."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

import torch
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from l2v.models import attention
from l2v.models.checkpoint import Checkpoint
from l2v.models.config_keys import FILE
from l2v.models.config_values import faults, rope_faults, usable
from l2v.models.devices import check_memory
from l2v.models.errors import ModelError, SourceError, UnsupportedModelError, first_line
from l2v.models.misfits import count, is_ignored, left_out, missing_cause, shape_cause, summary, unexpected_cause
from l2v.models.native_types import native_config
from l2v.models.quantization import checkpoints
from l2v.models.quiet import quiet
from l2v.models.sources import Source

logger = logging.getLogger(__name__)

# The advice says "in a copy", because the folder may be in the Hub's cache.
_CORRECT = "correct it in a copy of the folder"


def read_config(base: Source) -> PreTrainedConfig:
    """Reads the base's config. The publisher's own code is never run.

    If transformers has a type with the same network (see `native_types`), the config is read as that type.

    Raises:
        SourceError: if the config is damaged or has an invalid value.
        UnsupportedModelError: if transformers does not know the architecture.
    """
    return build_config(base.name, native_config(base.read(FILE)))


def build_config(name: str, content: dict[str, Any]) -> PreTrainedConfig:
    """Builds the config of a native class from the content of a config.json.

    Args:
        name: the name of the base, for messages.
        content: the content of the config.json.

    Raises:
        SourceError: if a value is invalid; the message names the field and the value.
        UnsupportedModelError: if transformers does not know the architecture.
    """
    model_type = content.get("model_type")
    if not isinstance(model_type, str):
        raise SourceError(f"config.json of {name} names no model_type: add the architecture's, such as llama or qwen3")
    if model_type not in CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"{name} is of type {model_type}, which this version of transformers cannot load without remote code"
        )
    kind = CONFIG_MAPPING[model_type]
    content = usable(content, kind)
    if model_type == "gemma" and content.get("hidden_act") == "gelu":
        # In Gemma's first configs, `gelu` means the tanh approximation. Some versions of transformers, such as 5.17,
        # use the exact function instead.
        content["hidden_act"] = "gelu_pytorch_tanh"
    if fault := next(faults(content, kind), None):
        raise SourceError(f"config.json of {name} cannot be used: {fault}; {_CORRECT}")
    try:
        config: PreTrainedConfig = kind.from_dict(content)
    except Exception as error:  # validators of configs raise errors of any class
        raise SourceError(
            f"config.json of {name} cannot be used ({model_type}: {first_line(error)}); {_CORRECT}"
        ) from error
    padding, tokens = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", 0)
    if padding is not None and not 0 <= padding < tokens:
        config.pad_token_id = None  # torch rejects such an id, and encoders do not pad
    if fault := next(rope_faults(config), None):
        raise SourceError(f"config.json of {name} cannot be used: {fault}; {_CORRECT}")
    return config


def read_decoder(
    base: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    ignore: Sequence[str] = (),
    claimed: Collection[str] = (),
) -> tuple[PreTrainedModel, list[str]]:
    """Reads the base's weights into the bare decoder, after checking from their headers that they fit.

    Args:
        base: the folder with the weights.
        config: see `read_config`.
        dtype: the dtype to load the weights in.
        ignore: patterns (`*`, `?`) of the names of further tensors to leave out.
        claimed: tensors that the caller reads itself, such as a projection.

    Returns:
        The decoder on the CPU, and a readable list of what was left out.

    Raises:
        SourceError: if weights are missing, damaged, quantized, of the wrong shape, or without a place in the decoder.
        UnsupportedModelError: if the decoder cannot be built or does not run with packed attention.
    """
    checkpoint = Checkpoint.of(base)
    surplus = _check_whole(base, config, checkpoint)
    unread = {name for name in checkpoint.shapes if name in claimed or is_ignored(name, ignore)}
    checkpoint = checkpoint.without(unread)
    meta = {name: torch.empty(shape, device="meta") for name, shape in checkpoint.shapes.items()}
    skeleton, report = _load(base, config, meta, torch.float32, device_map={"": "meta"})
    if _is_encoder(skeleton):
        raise UnsupportedModelError(_not_a_decoder(base, config))
    unused = _check_fit(base, checkpoint, skeleton, report)
    decoder, report = _load(base, config, checkpoint.without(unused).tensors, dtype)
    _check_fit(base, checkpoint, decoder, report)
    decoder.config.name_or_path = str(base.folder)
    return decoder, [*surplus, *summary((unread - set(claimed)) | unused)]


def _check_whole(base: Source, config: PreTrainedConfig, checkpoint: Checkpoint) -> list[str]:
    """Refuses quantized weights. If the weights have full precision, drops the config's claim that they are quantized.

    Returns:
        A readable list of what was dropped from the config.
    """
    marks = {mark: value for mark in checkpoints.KEYS if (value := getattr(config, mark, None))}
    mark = next(iter(marks.values()), None)
    if refusal := checkpoints.refusal(base.name, mark, checkpoint.dtypes):
        raise SourceError(refusal)
    method = checkpoints.method(mark)
    for name in marks:
        delattr(config, name)
        logger.info("%s has full-precision weights: its %s (%s) is ignored", base.name, name, method)
    return [f"{name} of config.json ({method}; the weights have full precision)" for name in marks]


def _load(
    base: Source, config: PreTrainedConfig, tensors: dict[str, Any], dtype: torch.dtype, **settings: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Builds the decoder from tensors. Returns the decoder and transformers' report on the loading."""
    kind = MODEL_MAPPING.get(type(config), None)
    if kind is None or config.is_encoder_decoder or config.get_text_config() is not config:
        raise UnsupportedModelError(_not_a_decoder(base, config))
    try:
        with quiet():  # `_check_fit` reports instead
            return kind.from_pretrained(  # type: ignore[no-any-return]
                None,
                config=config,
                state_dict=tensors,
                dtype=dtype,
                attn_implementation=attention.NAME,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check_fit` refuses mismatched sizes
                **settings,
            )
    except Exception as error:  # the architecture's own code can fail on the values of the config
        raise UnsupportedModelError(
            f"{base.name} ({config.model_type}) cannot be built from its config.json or run with packed attention: "
            f"{first_line(error)}"
        ) from error


def _is_encoder(model: PreTrainedModel) -> bool:
    """Whether the architecture attends in both directions by itself, as BERT and ModernBERT do.

    Packed attention would make it causal in silence. Besides, some encoders number positions in other ways.
    """
    switched = getattr(model.config, "use_bidirectional_attention", False)  # a decoder with this key on attends so, too
    return not switched and any(getattr(module, "is_causal", True) is False for module in model.modules())


def _not_a_decoder(base: Source, config: PreTrainedConfig) -> str:
    return (
        f"{base.name} ({config.model_type}) is not a text decoder: use a causal language model without an encoder or "
        "other modalities"
    )


def _check_fit(base: Source, checkpoint: Checkpoint, decoder: PreTrainedModel, report: dict[str, Any]) -> set[str]:
    """Checks that files and decoder hold the same tensors.

    The files may also hold tensors that no encoder needs. Returns the names of these.
    """
    names, kind = checkpoint.shapes, type(decoder).__name__
    if twice := sorted(names.keys() & {f"{decoder.base_model_prefix}.{name}" for name in names}):
        raise SourceError(
            f"the weights of {base.name} hold {twice[0]} with and without `{decoder.base_model_prefix}.`: remove one"
        )
    known: Collection[str] = decoder._keys_to_ignore_on_load_unexpected or ()  # noqa: SLF001
    if surplus := sorted(name for name in report["unexpected_keys"] if not left_out(name, decoder.config, known)):
        raise SourceError(
            f"the weights of {base.name} hold {count(surplus)} that {kind} has no place for, first {surplus[0]}: "
            f"{unexpected_cause(surplus[0], names, decoder)}"
        )
    if missing := sorted(report["missing_keys"]):
        raise SourceError(
            f"the weights of {base.name} lack {count(missing)} of {kind}, first {missing[0]}: "
            f"{missing_cause(missing[0], names, decoder)}"
        )
    if report["mismatched_keys"]:
        name, held, required = min(report["mismatched_keys"])
        raise SourceError(
            f"the weights of {base.name} do not fit its config.json: {name} has shape {list(held)}, but the config "
            f"requires {shape_cause(held, required, decoder.config)}; use the config.json that belongs to the weights"
        )
    return {name for name in names if left_out(name, decoder.config, known)} - set(decoder.state_dict())


def move(decoder: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Moves the decoder to the device, in evaluation mode. Raises `ModelError` if the device cannot hold it."""
    try:
        moved: PreTrainedModel = decoder.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        check_memory(error, decoder, device)
        raise ModelError(f"the model cannot be moved to device {device}: {first_line(error)}") from error
    return moved
