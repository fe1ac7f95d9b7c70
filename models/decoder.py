"""Reading the base: its config, and its weights as a bare decoder with packed bidirectional attention."""

from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from l2v.models import attention
from l2v.models.errors import ModelError, SourceError, UnsupportedModelError, first_line
from l2v.models.sources import Source


def read_config(base: Source) -> PreTrainedConfig:
    """Reads the base's config. The remote code that it may name is never run.

    Raises:
        SourceError: if it is damaged.
        UnsupportedModelError: if transformers does not know the architecture.
    """
    try:
        return AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    except Exception as error:  # validators of configs raise errors of any class
        model_type = base.read("config.json").get("model_type", "unknown")
        if model_type in CONFIG_MAPPING_NAMES:
            raise SourceError(
                f"config.json of {base.name} is damaged ({first_line(error)}): download it again"
            ) from error
        raise UnsupportedModelError(
            f"{base.name} is of type {model_type}, which this version of transformers cannot load without remote code"
        ) from error


def read_decoder(base: Source, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Reads the base's weights into the bare decoder.

    Raises:
        SourceError: if weights are missing, damaged or of the wrong shape.
        UnsupportedModelError: if the architecture does not run with packed attention.
    """
    if not any(base.folder.glob("*.safetensors")) and not any(base.folder.glob("*.bin")):
        raise SourceError(f"{base.name} has no weights: {base.folder} holds neither *.safetensors nor *.bin")
    try:
        decoder, report = AutoModel.from_pretrained(
            base.folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention.NAME,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
        )
    except UnpicklingError as error:
        raise SourceError(f"the weights of {base.name} contain code, which is never loaded") from error
    except (SafetensorError, OSError, EOFError, RuntimeError) as error:
        raise SourceError(
            f"the weights of {base.name} are damaged or incomplete ({first_line(error)}): download them again"
        ) from error
    except Exception as error:  # the architecture's own code fails on the values of the config
        raise UnsupportedModelError(
            f"{base.name} ({config.model_type}) cannot run packed attention: {first_line(error)}"
        ) from error
    misfits = sorted(report["missing_keys"]) + sorted(str(key[0]) for key in report["mismatched_keys"])
    if misfits:
        raise SourceError(
            f"the weights of {base.name} do not fit its config: {len(misfits)} are missing or have the wrong shape, "
            f"for example {misfits[0]}; download it again"
        )
    return decoder


def move(decoder: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Moves the decoder to the device, in evaluation mode. Raises `ModelError` if the device is not available."""
    try:
        moved: PreTrainedModel = decoder.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"the model cannot be moved to device {device}: {first_line(error)}") from error
    return moved


def check_max_length(config: PreTrainedConfig, max_length: int) -> None:
    """Checks that the model supports rows of this many tokens, and embeds each text independently of its batch.

    Raises:
        ModelError: if the model has fewer positions.
        UnsupportedModelError: if long rows would change how other texts of the batch, or the rows, are embedded.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_length > positions:
        raise ModelError(f"max_length {max_length} exceeds the {positions} positions of the model")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type") or rope.get("type")
    short = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if kind == "longrope" and short and max_length > short:
        # The longest text of a batch selects one of two sets of frequencies for the whole batch.
        raise UnsupportedModelError(
            f"{config.model_type} embeds short texts differently in a batch with long ones (longrope): max_length "
            f"{max_length} must not exceed {short}"
        )
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or [])
    if window and len(layers) > 1 and max_length > window:
        raise UnsupportedModelError(
            f"{config.model_type} mixes layers of full and sliding-window attention: max_length {max_length} must not "
            f"exceed its window of {window}"
        )
