"""What a stack's files declare about how it is served: pooling, lengths, template, name of the base."""

from collections.abc import Sequence
from typing import Any

from l2v.models.errors import SourceError
from l2v.models.sources import Source
from l2v.models.templates import template_for

# For settings that neither the caller nor the files set; the template's default depends on the base model.
_DEFAULTS: dict[str, Any] = {
    "pooling_mode": "mean",
    "max_length": 512,
    "doc_max_length": 400,
    "skip_instruction": True,
}

_STRING, _COUNT, _BOOLEAN = (str, "a string"), (int, "an integer of at least 1"), (bool, "true or false")
_TYPES: dict[str, tuple[type, str]] = {
    "pooling_mode": _STRING,
    "max_length": _COUNT,
    "doc_max_length": _COUNT,
    "skip_instruction": _BOOLEAN,
    "template": _STRING,
}


def declared_settings(sources: Sequence[Source]) -> dict[str, Any]:
    """The settings in the sources' files, later sources taking precedence.

    Raises:
        SourceError: if a setting has the wrong type.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        for file in ("llm2vec_config.json", "l2v.json"):
            declared = {name: value for name, value in source.read(file).items() if value is not None}
            for name, (kind, expected) in _TYPES.items():
                if name in declared and (type(declared[name]) is not kind or (kind is int and declared[name] < 1)):
                    raise SourceError(f"{file} of {source.name} is damaged: {name} must be {expected}")
            merged |= declared
    return merged


def base_name(base: Source, adapters: Sequence[Source]) -> str:
    """The Hub id of the base model, which determines the template.

    Read from the JSON files, since transformers 5 drops it from its config.
    """
    recorded = [(source, source.read("adapter_config.json").get("base_model_name_or_path")) for source in adapters]
    names = [name for source, name in recorded if name and not source.relative(name)]
    names += [base.read("config.json").get("_name_or_path"), base.name]
    candidates: list[str] = [name for name in names if name]
    return next((name for name in candidates if template_for(name) != "none"), candidates[0])


def merge_settings(explicit: dict[str, Any], declared: dict[str, Any], base: str) -> dict[str, Any]:
    """Merges the caller's settings, the declared ones and the defaults, in this order of precedence.

    Args:
        explicit: the caller's settings; None: not set.
        declared: the settings in the sources' files.
        base: the Hub id of the base model, which determines the default template.
    """
    settings = _DEFAULTS | declared | {name: value for name, value in explicit.items() if value or value is False}
    settings["template"] = settings.get("template") or template_for(base)
    return settings
