"""Reads modules.json and the folders of the modules: Pooling, Dense and Normalize."""

import json

from l2v.models.errors import SourceError
from l2v.models.sentence_transformers.files import MODULES, DenseConfig, File, Layout
from l2v.models.sources import Source

POOLINGS = {"mean": "mean", "weightedmean": "weighted_mean", "lasttoken": "last_token", "cls": "bos_token"}
# The keys of a pooling mode before release 5.4, in the order in which sentence-transformers concatenates the vectors.
FORMER_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_WIDTHS = ("embedding_dimension", "word_embedding_dimension")
# The activations of torch.nn that a layer may name: those without parameters.
_ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "LogSigmoid", "Mish"),
    *("ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Softsign", "Tanh", "Tanhshrink"),
)
_NAMES = ("module_input_name", "module_output_name")
# A module of perplexity-ai's models that quantizes the vector. l2v quantizes a vector only on request.
_QUANTIZER = "st_quantize.FlexibleQuantizer"


def read_modules(source: Source, layout: Layout) -> None:
    """Reads the modules in their order.

    Raises:
        SourceError: if a file is missing or damaged.
        UnsupportedModelError: if a module, or the order of the modules, is not supported.
    """
    file = File(source, MODULES, {})
    pooled = normalized = False
    for index, (name, folder) in enumerate(_modules(file)):
        if (name == "Transformer") != (index == 0):
            file.refuse(
                f"has a {name} as module {index} (only the first module may be a Transformer, and it must be one)"
            )
        match name:
            case "Transformer" if folder:
                file.refuse(f"keeps the decoder in the folder {folder}")
            case "Pooling" if not pooled:
                _read_pooling(source, folder, layout)
                pooled = True
            case "Dense":
                layout.layers.append(_read_dense(source, folder, pooled=pooled, normalized=normalized))
                normalized = False
            case "Normalize" if pooled:
                _read_normalize(source, folder)
                normalized = True
            case "FlexibleQuantizer":
                layout.values["int8_scale"] = ("tanh", MODULES)
            case "Transformer" | "Dropout":
                pass
            case _:
                file.refuse(f"has a {name} as module {index}")
    if not pooled:
        file.refuse("has no Pooling")
    layout.values["normalize"] = (normalized, MODULES)


def _modules(file: File) -> list[tuple[str, str]]:
    """The kind and the folder of each module."""
    source = file.source
    try:
        content = json.loads((source.folder / file.name).read_text(encoding="utf-8"))
        modules = [(module["type"], module.get("path", "")) for module in content]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(
            f"{file.name} of {source.name} is not a list of modules with their types: download or copy it again"
        ) from error
    for kind, folder in modules:
        if kind != _QUANTIZER and not str(kind).startswith("sentence_transformers."):
            file.refuse(f"names the module {kind}")
        if not isinstance(folder, str) or folder.startswith("/") or ".." in folder.split("/"):
            file.refuse(f"names the folder {folder}, which is not within the repository")
    # The package that holds a module's class depends on the release of sentence-transformers.
    return [(kind.rpartition(".")[2], folder) for kind, folder in modules]


def _read_pooling(source: Source, folder: str, layout: Layout) -> None:
    name = f"{folder}/config.json"
    file = File.read(source, name, {*_WIDTHS, *FORMER_KEYS, "pooling_mode", "include_prompt"})
    if not file.content:
        raise SourceError(f"{source.name} lacks {name}, which {MODULES} names: complete the folder")
    modes = file.content.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in FORMER_KEYS.items() if file.get(key, bool, False)] or "mean"
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        file.refuse(f"has the pooling {modes}")
    if len(modes) > 1:
        file.refuse(f"combines the poolings {' and '.join(map(str, modes))}")
    if modes[0] not in POOLINGS:
        file.refuse(f"has the pooling {modes[0]} (not one of {', '.join(POOLINGS)})")
    layout.width = next((width for key in _WIDTHS if (width := file.count(key))), 0)
    layout.values["pooling"] = (POOLINGS[modes[0]], name)
    layout.values["skip_instruction"] = (not file.get("include_prompt", bool, True), name)


def _read_dense(source: Source, folder: str, *, pooled: bool, normalized: bool) -> DenseConfig:
    name = f"{folder}/config.json"
    known = {"in_features", "out_features", "bias", "activation_function", "use_residual", *_NAMES}
    file = File.read(source, name, known)
    inputs, outputs = file.count("in_features"), file.count("out_features")
    if inputs is None or outputs is None:
        raise SourceError(f"{name} of {source.name}, which {MODULES} names, is missing or lacks the layer's sizes")
    expected = "sentence_embedding" if pooled else "token_embeddings"
    # Without names, the layer applies to the pooled vector.
    named = {file.get(key, str, None) for key in _NAMES} - {None} or {"sentence_embedding"}
    if named != {expected}:
        file.refuse(f"applies to {' and '.join(sorted(named))} {'after' if pooled else 'before'} the pooling")
    activation = file.get("activation_function", str, "torch.nn.modules.activation.Tanh")
    if not activation.startswith("torch.nn.") or activation.rpartition(".")[2] not in _ACTIVATIONS:
        file.refuse(f"names the activation {activation}")
    return DenseConfig(
        folder,
        inputs,
        outputs,
        bias=file.get("bias", bool, True),
        activation=activation,
        residual=file.get("use_residual", bool, False),
        per_token=not pooled,
        normalized=normalized,
    )


def _read_normalize(source: Source, folder: str) -> None:
    file = File.read(source, f"{folder}/config.json", _NAMES)
    named = {file.get(key, str, None) for key in _NAMES} - {None, "sentence_embedding"}
    if named:
        file.refuse(f"normalizes {' and '.join(sorted(named))}")
