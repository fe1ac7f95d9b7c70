"""The sentence-transformers files of a repository, in the old and the new format."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Json = dict[str, Any]

# Before release 5.4, every module was in `sentence_transformers.models`, which most repositories still name.
OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
OLD_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Dense:
    """A Dense module: its sizes, and the class of its activation."""

    inputs: int
    outputs: int
    bias: bool = False
    activation: str = "torch.nn.modules.linear.Identity"


@dataclass(frozen=True)
class Declaration:
    """What a repository declares for sentence-transformers. A field that is None omits its key."""

    pooling: str
    include_prompt: bool = True
    dense: tuple[Dense, ...] = ()
    normalize: bool = True
    quantizer: bool = False
    prompts: Json = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str | None = "cosine"
    max_seq_length: int | None = None
    lower_case: bool = False
    truncate_dim: int | None = None
    new_form: bool = False


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def pooling_config(width: int, declaration: Declaration) -> Json:
    if declaration.new_form:
        modes = {"embedding_dimension": width, "pooling_mode": declaration.pooling}
    else:
        modes = {key: mode == declaration.pooling for mode, key in OLD_POOLING_KEYS.items()}
        modes = {"word_embedding_dimension": width} | modes
    return modes | {"include_prompt": declaration.include_prompt}


def write_dense(folder: Path, dense: Dense, generator: torch.Generator) -> None:
    config = {"in_features": dense.inputs, "out_features": dense.outputs, "bias": dense.bias}
    write_json(folder / "config.json", config | {"activation_function": dense.activation})
    weights = {"linear.weight": torch.randn(dense.outputs, dense.inputs, generator=generator) * dense.inputs**-0.5}
    if dense.bias:
        weights["linear.bias"] = torch.randn(dense.outputs, generator=generator) * 0.3
    save_file(weights, folder / "model.safetensors")


def write_declaration(folder: Path, width: int, declaration: Declaration, generator: torch.Generator) -> None:
    """Write modules.json, the modules' folders and the two configuration files of sentence-transformers."""
    steps = ["Transformer", "Pooling", *("Dense" for _ in declaration.dense)]
    steps += ["Normalize"] if declaration.normalize else []
    modules = []
    for index, step in enumerate(steps):
        kind = NEW[step] if declaration.new_form else OLD + step
        modules.append({"idx": index, "name": str(index), "path": f"{index}_{step}" if index else "", "type": kind})
    if declaration.quantizer:
        index = len(modules)
        kind = "st_quantize.FlexibleQuantizer"
        modules.append({"idx": index, "name": str(index), "path": "", "type": kind, "kwargs": ["quantization"]})
    write_json(folder / "modules.json", modules)
    write_json(folder / "1_Pooling" / "config.json", pooling_config(width, declaration))
    for index, dense in enumerate(declaration.dense):
        write_dense(folder / f"{index + 2}_Dense", dense, generator)
    settings = {"prompts": declaration.prompts, "default_prompt_name": declaration.default_prompt}
    if declaration.similarity:
        settings["similarity_fn_name"] = declaration.similarity
    if declaration.truncate_dim:
        settings["truncate_dim"] = declaration.truncate_dim
    if declaration.prompts or declaration.truncate_dim or not declaration.quantizer:
        write_json(folder / "config_sentence_transformers.json", settings)
    if declaration.max_seq_length:
        length = {"max_seq_length": declaration.max_seq_length, "do_lower_case": declaration.lower_case}
        write_json(folder / "sentence_bert_config.json", length)
