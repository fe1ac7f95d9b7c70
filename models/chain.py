"""What a model's name stands for: a base, the adapters behind it, and what they say of the encoder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l2v.models.errors import SourceError
from l2v.models.published import STACKS
from l2v.models.sources import Kind, Source, resolve
from l2v.models.templates import template_for

# What the sources may say of the encoder.
_TEXT, _NUMBER, _TRUTH = (str, "a text"), (int, "a number from 1 on"), (bool, "true or false")
_KINDS: dict[str, tuple[type, str]] = {
    "pooling_mode": _TEXT,
    "max_length": _NUMBER,
    "doc_max_length": _NUMBER,
    "skip_instruction": _TRUTH,
    "template": _TEXT,
}


def resolve_chain(model: str, adapters: Sequence[str], brought_by: tuple[str, ...] = ()) -> tuple[Source, list[Source]]:
    """The base (or export) and the adapters behind it, all as local folders."""
    if model in brought_by:
        raise SourceError(f"adapter {model} names itself as its base: name the base as the model instead")
    if stack := STACKS.get(model):
        model, adapters = stack.model, [*stack.adapters, *adapters]
    named, behind = resolve(model), [resolve(adapter) for adapter in adapters]
    for source in behind:
        if source.kind is not Kind.ADAPTER:
            raise SourceError(
                f"{source.name} is not an adapter (it has no adapter_config.json): name it as the model instead"
            )
    if named.kind is not Kind.ADAPTER:
        return named, behind
    base = named.read("adapter_config.json").get("base_model_name_or_path")
    if not base:
        raise SourceError(f"{named.name} does not say which base model it is for: name that as the model instead")
    try:
        base, chain = resolve_chain(_beside(named, base) or base, [], (*brought_by, model))
    except SourceError as error:
        raise SourceError(f"the base that adapter {named.name} names cannot be had: {error}") from error
    return base, [*chain, named, *behind]


def settings_of(sources: list[Source]) -> dict[str, Any]:
    """What the sources themselves say of pooling and lengths; later ones win."""
    merged: dict[str, Any] = {}
    for source in sources:
        for file in ("llm2vec_config.json", "l2v.json"):
            given = {name: value for name, value in source.read(file).items() if value is not None}
            for name, (kind, what) in _KINDS.items():
                if name in given and (type(given[name]) is not kind or (kind is int and given[name] < 1)):
                    raise SourceError(f"{file} of {source.name} is damaged: {name} must be {what}")
            merged |= given
    return merged


def base_name(base: Source, chain: list[Source]) -> str:
    """The Hub id that the template goes by; read from the JSON, since transformers 5 drops it from its config."""
    recorded = [(source, source.read("adapter_config.json").get("base_model_name_or_path")) for source in chain]
    names = [name for source, name in recorded if name and not _beside(source, name)]
    names += [base.read("config.json").get("_name_or_path"), base.name]
    known: list[str] = [name for name in names if name]
    return next((name for name in known if template_for(name) != "none"), known[0])


def _beside(source: Source, name: str) -> str:
    """The folder so named from where a source itself stands, as adapters that are trained here name their base."""
    folder = Path(os.path.normpath(source.folder / name))
    return str(folder) if folder.is_dir() else ""
