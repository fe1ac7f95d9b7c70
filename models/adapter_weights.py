"""Reads an adapter's weights. Separates the decoder's weights from a head's weights, since encoders need no head."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from l2v.models.checkpoint import Checkpoint
from l2v.models.errors import AdapterError, SourceError
from l2v.models.misfits import WRAPPERS, count, is_ignored, summary
from l2v.models.sources import Source

PREFIX = "base_model.model."
_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# Parts of a trained model that are outside the decoder. An encoder does not need their weights.
_LEFT_OUT = re.compile(
    r"^(model\.)*(lm_head|embed_out|score|classifier|v_head|visual|vision_tower|vision_model|multi_modal_projector|"
    r"mm_projector|audio_tower)\."
)


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """The weights of an adapter.

    Attributes:
        weights: the decoder's weights, by their names in the trained model, with peft's prefix.
        path: the decoder's path in the trained model: "model" in a ForCausalLM model; "" if the decoder itself was
            trained.
        left_out: the names of the adapter's other tensors.
    """

    weights: dict[str, torch.Tensor] = field(repr=False)
    path: str
    left_out: list[str]


def read_weights(source: Source, decoder: PreTrainedModel, ignore: Sequence[str] = ()) -> AdapterWeights:
    """Reads the weights and finds the decoder's place in the model that the adapter was trained on.

    Args:
        source: the adapter.
        decoder: the bare decoder.
        ignore: patterns of the names of tensors to leave out.

    Raises:
        SourceError: if the file is missing or damaged.
        AdapterError: if the tensor names do not have peft's form, if a tensor belongs neither to the decoder nor to a
            known part beside it, such as a head, or if no tensor belongs to the decoder.
    """
    name = next((name for name in _FILES if (source.folder / name).is_file()), None)
    if name is None:
        raise SourceError(
            f"adapter {source.name} has no weights: its folder holds no adapter_model.safetensors; save it with peft"
        )
    checkpoint = Checkpoint.read(source, [name])
    names = {key for key in checkpoint.shapes if not is_ignored(key, ignore)}
    _check_prefix(source, names)
    children = [child for child, _ in decoder.named_children()]
    path = _path(names, children)
    place = f"{PREFIX}{path}." if path else PREFIX
    inside = [
        key for key in sorted(names) if key.startswith(place) and key.removeprefix(place).split(".")[0] in children
    ]
    outside = sorted(names - set(inside))
    if strange := [key for key in outside if not _LEFT_OUT.match(key.removeprefix(PREFIX))]:
        raise AdapterError(
            f"adapter {source.name} holds {count(strange)} outside the decoder, first {strange[0]}: check that "
            "it belongs to this base model, or set ignore_tensors to leave them out"
        )
    if not inside:
        held = f", only {summary(outside)[0]}" if outside else " (it holds no tensors)"
        raise AdapterError(
            f"adapter {source.name} changes nothing in the decoder{held}: it has no effect on embeddings"
        )
    left_out = summary([*outside, *(checkpoint.shapes.keys() - names)])
    return AdapterWeights({key: checkpoint.tensor(key) for key in inside}, path, left_out)


def _check_prefix(source: Source, names: Collection[str]) -> None:
    """Rejects tensor names that peft does not write."""
    if strange := min((name for name in names if not name.startswith(PREFIX)), default=None):
        prefix = strange.partition(PREFIX)[0] if PREFIX in strange else ""
        reason = f"a training tool put `{prefix}` before the names" if prefix else f"peft's names begin with `{PREFIX}`"
        raise AdapterError(
            f"the tensor names of adapter {source.name}, such as {strange}, are not peft's: {reason}; save the adapter "
            "with peft's save_pretrained"
        )
    for infix in WRAPPERS:
        if wrapped := min((name for name in names if f".{infix}" in name), default=None):
            raise AdapterError(
                f"the tensor names of adapter {source.name}, such as {wrapped}, contain `{infix}`, which a training "
                "tool added: save the unwrapped model with peft's save_pretrained"
            )
    if unnamed := min((name for name in names if re.search(r"lora_\w+\.default(\.|$)", name)), default=None):
        raise AdapterError(
            f"the tensor names of adapter {source.name}, such as {unnamed}, contain the adapter's own name: save the "
            "adapter with peft's save_pretrained"
        )


def _path(names: Collection[str], children: Collection[str]) -> str:
    """Finds the decoder's path in the trained model by the names of the decoder's child modules.

    The tower of another modality may have child modules with the same names. So this returns the path that occurs most
    often.
    """
    found: Counter[str] = Counter()
    for name in sorted(names):
        parts = name.removeprefix(PREFIX).split(".")
        index = next((index for index, part in enumerate(parts) if part in children), None)
        if index is not None and not _LEFT_OUT.match(name.removeprefix(PREFIX)):
            found[".".join(parts[:index])] += 1
    return found.most_common(1)[0][0] if found else ""
