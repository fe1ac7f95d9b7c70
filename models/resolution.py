"""Reads a model's declaration from its files, and decides which file takes precedence."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from l2v.models.config_keys import FILE, attention_of, has_bidirectional_windows, matryoshka_of, pooling_of
from l2v.models.declaration import DEFAULT, OWN_FILES, SETTING, Declaration, Declared
from l2v.models.errors import ModelError, SourceError, UnsupportedModelError
from l2v.models.native_types import native_config, native_type
from l2v.models.sentence_transformers.files import MODULES, DenseConfig, Layout
from l2v.models.sentence_transformers.layout import has_layout, read_layout
from l2v.models.sentence_transformers.settings import tokenizer_length
from l2v.models.sources import Source
from l2v.models.templates import TEMPLATES, template_for
from l2v.models.types import Attention, Int8Scale, Pooling, Semantics

_STRING, _COUNT, _BOOLEAN = (str, "a string"), (int, "an integer of at least 1"), (bool, "true or false")
_TYPES: dict[str, tuple[type, str]] = {
    "pooling_mode": _STRING,
    "max_length": _COUNT,
    "doc_max_length": _COUNT,
    "skip_instruction": _BOOLEAN,
    "template": _STRING,
    "attention": _STRING,
    "semantics": _STRING,
    "int8_scale": _STRING,
}
# The format of l2v.json. Format 1 knows only LLM2Vec's semantics and bidirectional attention.
FORMAT = 2
# Other keys that exports record.
_RECORDED = ("format", "base", "sources", "sentence_transformers_limits")


def base_name(base: Source, adapters: Sequence[Source]) -> str:
    """The Hub id of the base model, which determines the template.

    The id is read from the JSON files, since transformers 5 drops it from its config objects.
    """
    recorded = [(source, source.trained_on) for source in adapters]
    names = [name for source, name in recorded if name and not source.relative(name)]
    names += [base.read("config.json").get("_name_or_path") or "", base.name]
    candidates = [name for name in names if name]
    return next((name for name in candidates if template_for(name) != "none"), candidates[0])


def tokenizer_source(base: Source, adapters: Sequence[Source]) -> Source:
    """The source of the tokenizer. As in the reference, the repository that the user named takes precedence."""
    return next(source for source in [*adapters[:1], base] if source.has_tokenizer or source is base)


def own_settings(sources: Sequence[Source]) -> dict[str, Declared[Any]]:
    """The settings in the sources' l2v.json and llm2vec_config.json, later sources taking precedence.

    Raises:
        SourceError: if a setting is unknown or has the wrong type, or an export has an unknown format.
    """
    merged: dict[str, Declared[Any]] = {}
    for source in sources:
        for file in OWN_FILES:
            declared = {name: value for name, value in source.read(file).items() if value is not None}
            if unknown := sorted(declared.keys() - _TYPES.keys() - set(_RECORDED)):
                raise SourceError(
                    f"{file} of {source.name} sets {unknown[0]}, which is unknown: remove it, or use one of "
                    f"{', '.join(_TYPES)}"
                )
            if (version := declared.get("format", FORMAT)) not in range(1, FORMAT + 1):
                raise SourceError(
                    f"{file} of {source.name} has the format {version}, which needs a later l2v: update l2v"
                )
            for name, (kind, expected) in _TYPES.items():
                if name in declared and (type(declared[name]) is not kind or (kind is int and declared[name] < 1)):
                    raise SourceError(f"{file} of {source.name} is damaged: {name} must be {expected}")
            merged |= {name: Declared(value, file) for name, value in declared.items()}
    if "pooling_mode" in merged:
        merged["pooling"] = merged.pop("pooling_mode")
    return merged


def read_declaration(
    base: Source, adapters: Sequence[Source], settings: Mapping[str, Any], positions: object, tokenizer: Source
) -> Declaration:
    """Reads all files and merges their values.

    Args:
        base: the source of the decoder's config.
        adapters: the sources merged into the decoder, in order.
        settings: the caller's settings, named as in `Declaration`; a None value means that the setting is not set.
        positions: the model's `max_position_embeddings`; None if its config has none.
        tokenizer: the source of the tokenizer.

    Raises:
        ModelError: if a file is damaged or declares something that l2v does not serve, or a setting is unknown.
    """
    sources, published = [base, *adapters], base.read(FILE)
    known = own_settings(sources)
    known |= {name: Declared(value, SETTING) for name, value in settings.items() if value or value is False}
    semantics = known.get("semantics") or _semantics(sources)
    _check_choice("semantics", semantics.value, get_args(Semantics))
    llm2vec = semantics.value == "llm2vec"
    layout = Layout() if llm2vec else _read_layout(sources, tokenizer, positions, known)
    known = {name: Declared(value, origin) for name, (value, origin) in layout.values.items()} | known

    def declared(name: str, default: Any, origin: str = DEFAULT) -> Any:
        return known.get(name) or Declared(default, origin)

    max_length = declared("max_length", 512)
    found = Declaration(
        semantics=semantics,
        attention=declared("attention", "bidirectional"),
        pooling=declared("pooling", "mean"),
        skip_instruction=declared("skip_instruction", llm2vec),
        max_length=max_length,
        doc_max_length=declared("doc_max_length", 400) if llm2vec else known.get("doc_max_length", max_length),
        template=declared("template", template_for(base_name(base, adapters)) if llm2vec else "none"),
        lower_case=declared("lower_case", False),
        prompts=declared("prompts", {}),
        default_prompt_name=declared("default_prompt_name", None),
        similarity=declared("similarity", "cosine"),
        normalize=declared("normalize", False),
        truncate_dim=declared("truncate_dim", None),
        matryoshka_dimensions=declared("matryoshka_dimensions", None),
        int8_scale=declared("int8_scale", "maximum"),
        windowed=False,
        layers=(*_projection(base), *layout.layers),
        layers_source=_layout_source(sources) or base,
        width=layout.width,
        served_before=native_config(published).get("model_type") == published.get("model_type"),
    )
    _check_choice("attention", found.attention.value, get_args(Attention))
    _check_choice("pooling", found.pooling.value, get_args(Pooling))
    _check_choice("template", found.template.value, TEMPLATES)
    _check_choice("int8_scale", found.int8_scale.value, get_args(Int8Scale))
    return replace(found, windowed=not llm2vec and (found.causal or has_bidirectional_windows(published)))


def _semantics(sources: Sequence[Source]) -> Declared[Semantics]:
    """The semantics of the last source whose files declare any, else LLM2Vec's."""
    for source in reversed(sources):
        if file := next((file for file in reversed(OWN_FILES) if (source.folder / file).is_file()), None):
            return Declared("llm2vec", file)
        if has_layout(source):
            return Declared("sentence-transformers", MODULES)
    if pooling_of(sources[0].read(FILE), sources[0]):
        return Declared("sentence-transformers", FILE)
    return Declared("llm2vec")


def _layout_source(sources: Sequence[Source]) -> Source | None:
    return next((source for source in reversed(sources) if (source.folder / MODULES).is_file()), None)


def _read_layout(sources: Sequence[Source], tokenizer: Source, positions: object, known: Mapping[str, Any]) -> Layout:
    """Reads what sentence-transformers' files and config.json declare."""
    base, source = sources[0], _layout_source(sources)
    layout = read_layout(source) if source else Layout()
    config = base.read(FILE)
    key = "use_bidirectional_attention"
    if config.get("model_type") == "gemma3_text" and layout.config.get(key) and not config.get(key):
        raise UnsupportedModelError(
            f"sentence-transformers' files of {base.name} set {key}, which also changes the windows of a gemma3_text: "
            f"set it in {FILE} in a copy of the folder instead"
        )
    config |= layout.config
    if source is None and (pooling := pooling_of(config, base)):
        layout.values["pooling"] = (pooling, FILE)
    if "attention" not in known and (attention := attention_of(config, base)):
        layout.values["attention"] = (attention, FILE)
    elif source:
        layout.values["attention"] = ("causal", MODULES)
    if sizes := matryoshka_of(config, base):
        layout.values["matryoshka_dimensions"] = (sizes, FILE)
    if "max_length" not in layout.values and (length := tokenizer_length(tokenizer, positions)):
        layout.values["max_length"] = length
    if "max_length" not in layout.values and "max_length" not in known:
        raise ModelError(f"no file of {base.name} declares a maximum length: set max_length")
    return layout


def _projection(base: Source) -> list[DenseConfig]:
    """The projection that a publisher's code applies to every token's state, if any."""
    config = base.read(FILE)
    native = native_type(config)
    if native is None or not native.projection:
        return []
    inputs, outputs = config.get("hidden_size"), config.get("num_labels")
    if type(inputs) is not int or type(outputs) is not int:
        raise SourceError(f"{FILE} of {base.name} lacks hidden_size or num_labels, the sizes of {native.projection}")
    return [DenseConfig(native.projection, inputs, outputs, per_token=True)]


def _check_choice(setting: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ModelError(f"{setting} {value} is unknown: use one of {', '.join(choices)}")
