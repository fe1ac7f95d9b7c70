"""Merges adapters into the decoder, and checks that they fit and have an effect."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from transformers import PreTrainedModel

from l2v.models.adapter_config import read_config, targets_all_linear
from l2v.models.adapter_weights import PREFIX, AdapterWeights, read_weights
from l2v.models.errors import AdapterError, first_line
from l2v.models.misfits import count
from l2v.models.progress import stage
from l2v.models.sources import Source

_A_OF_B = re.compile("lora_(embedding_)?B")
# How many rows of a weight are merged at a time: few enough for a core's cache, but enough for fast products.
_ROWS = 256


def merge(decoder: PreTrainedModel, source: Source, ignore: Sequence[str] = ()) -> tuple[PreTrainedModel, list[str]]:
    """Merges one adapter, trained on the bare decoder or on a model that contains it.

    Args:
        decoder: the decoder to merge into. It is changed in place.
        source: the adapter.
        ignore: patterns (`*`, `?`) of the names of the adapter's tensors to leave out.

    Returns:
        The decoder with merged weights and without peft's layers, and a readable list of the tensors that were left
        out.

    Raises:
        SourceError: if the adapter's files cannot be read.
        AdapterError: if the adapter's kind cannot be merged, if its tensors do not match the decoder's exactly, or if
            the adapter has no effect.
    """
    config = read_config(source)
    read = read_weights(source, decoder, ignore)
    check_finite(source, read.weights)
    _resize_vocabulary(decoder, read)
    before = {} if type(config) is LoraConfig else _sums(decoder)
    with _unchanged_compilers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)  # from peft, about training and saving
        warnings.filterwarnings("ignore", category=FutureWarning)  # from transformers, about properties that peft reads
        adapted = attach(decoder, source, config, read)
        check_fit(source, read.weights, adapted)
        effective = type(config) is not LoraConfig or has_effect(config, read.weights, adapted)
        try:
            loaded = set_peft_model_state_dict(adapted, read.weights)
        except (RuntimeError, KeyError) as error:
            raise _misfit(source, decoder, first_line(error)) from error
        if loaded.unexpected_keys:
            raise _misfit(source, decoder, f"there is no place for {loaded.unexpected_keys[0]}")
        try:
            _merge_linears(adapted, f"merging {source.label}")
            merged = adapted.merge_and_unload(safe_merge=False)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            raise AdapterError(f"adapter {source.name} cannot be merged ({first_line(error)})") from error
    merged = cast(PreTrainedModel, merged.get_submodule(read.path))
    if not effective or (before and before == _sums(merged)):
        raise AdapterError(f"adapter {source.name} has no effect (its change is zero): check that it was trained")
    # If this flag stayed set, `save_pretrained` would save an adapter instead of the model.
    merged._hf_peft_config_loaded = False  # noqa: SLF001
    return merged, [f"{name} of {source.label}" for name in read.left_out]


@contextmanager
def _unchanged_compilers() -> Iterator[None]:
    """Restores the environment variables that name the compilers when the block ends.

    For BOFT, peft sets these variables to build a CUDA kernel, and leaves them set if the build fails. While they are
    set, compiled layers are linked without the C++ library.
    """
    before = {name: os.environ.get(name) for name in ("CC", "CXX")}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _TrainedModel(torch.nn.Module):
    """Nests the decoder at its path in the trained model, because the adapter's settings refer to that path."""

    def __init__(self, decoder: PreTrainedModel, path: list[str]) -> None:
        super().__init__()
        self.config = decoder.config
        self.base_model_prefix = path[0]
        inner: torch.nn.Module = decoder
        for part in reversed(path[1:]):
            outer = torch.nn.Module()
            outer.add_module(part, inner)
            inner = outer
        self.add_module(path[0], inner)
        self._path = ".".join(path)

    def get_input_embeddings(self) -> torch.nn.Module:
        decoder = cast(PreTrainedModel, self.get_submodule(self._path))
        return cast(torch.nn.Module, decoder.get_input_embeddings())


def attach(decoder: PreTrainedModel, source: Source, config: PeftConfig, read: AdapterWeights) -> PeftModel:
    """Adds the adapter's layers to the decoder, without loading their trained weights."""
    model: Any = _TrainedModel(decoder, read.path.split(".")) if read.path else decoder
    modules = {name for name, _ in model.named_modules()}
    config.inference_mode = True
    config.base_model_name_or_path = None  # otherwise, peft warns that the base, a local folder, has another name
    config.task_type = None  # the wrapper for a task does not fit the bare decoder
    if saved := getattr(config, "modules_to_save", None):
        # Drop modules that the decoder lacks: heads, whose tensors `read_weights` leaves out. As in peft, a name may be
        # the end of a module's path.
        config.modules_to_save = [name for name in saved if any(module.endswith(name) for module in modules)] or None
    if targets_all_linear(config):
        config.target_modules = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    if getattr(config, "lora_bias", False):
        _check_biases(decoder, source, read)
    try:
        return get_peft_model(model, config)
    except Exception as error:  # settings of the wrong type can fail anywhere in peft
        raise _misfit(source, decoder, first_line(error)) from error


def _check_biases(decoder: PreTrainedModel, source: Source, read: AdapterWeights) -> None:
    """Checks that each layer to which the adapter adds a bias already has a bias."""
    for key in read.weights:
        module, found, _ = key.removeprefix(f"{PREFIX}{read.path}").lstrip(".").partition(".lora_B.bias")
        if found and getattr(decoder.get_submodule(module), "bias", None) is None:
            raise AdapterError(
                f"adapter {source.name} has a bias (lora_bias) for {module}, which cannot be merged, as the base has "
                "none there: train it without lora_bias"
            )


def _resize_vocabulary(decoder: PreTrainedModel, read: AdapterWeights) -> None:
    """Resizes the decoder's embeddings if the adapter's file holds an embedding matrix of another vocabulary size.

    peft saves the whole matrix if the vocabulary was resized for training.
    """
    embeddings = decoder.get_input_embeddings()
    name = next(name for name, module in decoder.named_modules() if module is embeddings)
    place = f"{PREFIX}{read.path}.{name}.".replace("..", ".")
    sizes = {
        len(weight)
        for key, weight in read.weights.items()
        if key.startswith(place) and key.endswith("weight") and weight.shape[1:] == embeddings.weight.shape[1:]
    }
    if len(sizes) == 1 and (size := sizes.pop()) != len(embeddings.weight):
        decoder.resize_token_embeddings(size, mean_resizing=False)


def _misfit(source: Source, decoder: PreTrainedModel, reason: str) -> AdapterError:
    return AdapterError(
        f"adapter {source.name} does not fit {decoder.config.model_type} ({reason}): check that it belongs to this "
        "base model and that its adapter_config.json has not been changed"
    )


def check_fit(source: Source, weights: dict[str, torch.Tensor], adapted: PeftModel) -> None:
    """Checks that the adapter's file holds the tensors that its settings call for, and no tensor unknown to the model.

    The file may also hold weights of the decoder itself, since peft saves the whole embedding matrix if the adapter
    changes it or if the vocabulary was resized.
    """
    expected = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    state = adapted.state_dict()
    surplus = sorted(key for key in weights if key not in expected and key not in state)
    missing = sorted(expected.keys() - weights.keys())
    if surplus or missing:
        first = f"it lacks {missing[0]}" if missing else f"the model has no place for {surplus[0]}"
        raise AdapterError(
            f"adapter {source.name} does not fit the model: {first} ({count([*surplus, *missing], 'key')} in "
            "total); check that the adapter belongs to this base model, and that its adapter_config.json and its "
            "weights belong together"
        )
    for key, weight in weights.items():
        required = expected.get(key, state.get(key))
        if required is not None and weight.shape != required.shape:
            raise AdapterError(
                f"adapter {source.name} does not fit the model: {key} has shape {list(weight.shape)}, but the model "
                f"requires {list(required.shape)}; check that it belongs to this base model"
            )


@torch.no_grad()
def _merge_linears(adapted: PeftModel, title: str) -> None:
    """Merges plain LoRA into linear layers, some rows at a time, and rounds as peft does. Leaves other layers to peft.

    peft would compute the change of a whole weight at once, in temporary copies several times as large as the weight.
    """
    layers = [layer for layer in adapted.modules() if type(layer) is LoraLinear and is_plain(layer)]
    with stage(title, sum(layer.get_base_layer().weight.nbytes for layer in layers)) as advance:
        for layer in layers:
            (name,) = layer.lora_A.keys()
            a, b, weight = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.get_base_layer().weight
            for rows, factor in zip(weight.split(_ROWS), b.split(_ROWS), strict=True):
                rows.add_(factor @ a, alpha=layer.scaling[name])
            layer.merged_adapters.append(name)  # so that peft does not merge this layer again
            advance(weight.nbytes)


def is_plain(layer: LoraLinear) -> bool:
    """Whether merging adds the scaled product of two factors to the weight, and nothing else."""
    return not (layer.lora_variant or layer.fan_in_fan_out or any(layer.lora_bias.values()))


def check_finite(source: Source, weights: dict[str, torch.Tensor]) -> None:
    for key, weight in weights.items():
        if not weight.isfinite().all():
            raise AdapterError(f"adapter {source.name} holds NaN or infinity in {key}: train it again")


def has_effect(config: LoraConfig, weights: dict[str, torch.Tensor], adapted: PeftModel) -> bool:
    """Whether LoRA changes a weight. The change is the product of two factors, scaled by lora_alpha."""
    untrained = adapted.state_dict() | get_peft_model_state_dict(adapted, save_embedding_layers=False)
    scaled = bool(config.lora_alpha or config.alpha_pattern)
    for key, weight in weights.items():
        if "lora_A" in key or "lora_embedding_A" in key or "lora_magnitude_vector" in key:
            continue
        if "lora_B" in key or "lora_embedding_B" in key:
            alone = key.endswith(".bias")  # a bias is added without the other factor
            changed = scaled and weight.any() and (alone or weights[_A_OF_B.sub(r"lora_\1A", key)].any())
        else:  # a weight that is saved whole
            changed = not torch.equal(weight.to(untrained[key].dtype), untrained[key])
        if changed:
            return True
    return False


def _sums(model: torch.nn.Module) -> dict[str, float]:
    """For each weight, the sum of its values. A merge that changes no sum is taken to have no effect."""
    return {name: weight.sum(dtype=torch.float64).item() for name, weight in model.named_parameters()}
