"""Writes the files that a sentence-transformers repository holds beside its decoder, for other servers.

Some settings have an older and a newer form. The files hold only the older form if every release and server reads it,
else both forms.
"""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from l2v.models.encoder import Encoder
from l2v.models.head import Dense
from l2v.models.sentence_transformers.files import MODEL_SETTINGS, MODULES, SETTINGS
from l2v.models.sentence_transformers.modules import FORMER_KEYS, POOLINGS

# Our pooling modes → those of sentence-transformers. Our `eos_token` also appends a token, which none of those does.
_POOLINGS = {"eos_token": "lasttoken"} | {ours: theirs for theirs, ours in POOLINGS.items()}
# TEI reads the pooling only at this path.
_POOLING_FOLDER = "1_Pooling"


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_layout(encoder: Encoder, folder: Path) -> None:
    """Writes modules.json, the folders of the modules, and the two files of settings."""
    modules: list[dict[str, object]] = []

    def add(kind: str, path: str | None = None) -> Path:
        index = len(modules)
        path = f"{index}_{kind}" if path is None else path
        kind = f"sentence_transformers.models.{kind}"
        modules.append({"idx": index, "name": str(index), "path": path, "type": kind})
        (folder / path).mkdir(exist_ok=True)
        return folder / path

    declared = encoder.declaration
    add("Transformer", "")
    for layer in _before_pooling(encoder):
        _write_dense(layer, add("Dense"))
    if leading := leading_without_weight(encoder):
        write_json(add("WordWeights") / "config.json", _word_weights(leading, encoder.model.config.vocab_size))
    write_json(add("Pooling", _POOLING_FOLDER) / "config.json", _pooling(encoder))
    for layer in encoder.head.layers[len(_before_pooling(encoder)) :]:
        if layer.config.normalized:
            add("Normalize")
        _write_dense(layer, add("Dense"))
    # LLM2Vec's semantics declare no normalization, but the service normalizes vectors by default.
    if declared.normalize.value or declared.semantics.value == "llm2vec":
        add("Normalize")
    write_json(folder / MODULES, modules)
    settings = {"max_seq_length": encoder.max_length, "do_lower_case": declared.lower_case.value}
    # WordWeights fails on inputs without padding.
    write_json(folder / SETTINGS, settings | ({"unpad_inputs": False} if leading else {}))
    write_json(folder / MODEL_SETTINGS, _model_settings(encoder))


def leading_without_weight(encoder: Encoder) -> list[int]:
    """The ids of the special tokens before a text that LLM2Vec does not pool and the module WordWeights can leave out.

    The module Pooling leaves out a prompt, but in a text without a prompt, it pools the beginning token. The module
    WordWeights leaves out that token.
    """
    tokenization = encoder.tokenization
    if encoder.declaration.semantics.value != "llm2vec" or encoder.pooling != "mean":
        return []
    leading = tokenization.leading if tokenization.skip_instruction else 0
    return tokenization.tokenizer.encode("a").ids[:leading]


def _before_pooling(encoder: Encoder) -> list[Dense]:
    return [layer for layer in encoder.head.layers if layer.config.per_token]


def _word_weights(ids: list[int], vocabulary: int) -> dict[str, Any]:
    """A weight of 0 for these tokens and of 1 for all others. Only the position of a word in the vocabulary matters."""
    words = [str(index) for index in range(vocabulary)]
    return {"vocab": words, "word_weights": {str(index): 0.0 for index in ids}, "unknown_word_weight": 1.0}


def _pooling(encoder: Encoder) -> dict[str, Any]:
    """The pooling, in the schema of release 5.4 and in the earlier schema."""
    mode, layers = _POOLINGS[encoder.pooling], _before_pooling(encoder)
    width = layers[-1].config.outputs if layers else int(encoder.model.config.hidden_size)
    # LLM2Vec's `bos_token` is the first token of the whole input, before any instruction.
    first = encoder.declaration.semantics.value == "llm2vec" and encoder.pooling == "bos_token"
    return {
        "word_embedding_dimension": width,
        "pooling_mode": mode,
        **{key: former == mode for key, former in FORMER_KEYS.items()},
        "include_prompt": first or not encoder.tokenization.skip_instruction,
    }


def _write_dense(layer: Dense, folder: Path) -> None:
    config = layer.config
    content: dict[str, Any] = {
        "in_features": config.inputs,
        "out_features": config.outputs,
        "bias": config.bias,
        "activation_function": config.activation,
    }
    if config.residual:
        content["use_residual"] = True
    if config.per_token:
        content |= dict.fromkeys(("module_input_name", "module_output_name"), "token_embeddings")
    write_json(folder / "config.json", content)
    save_file({name: weight.contiguous() for name, weight in layer.state_dict().items()}, folder / "model.safetensors")


def _model_settings(encoder: Encoder) -> dict[str, Any]:
    declared = encoder.declaration
    content: dict[str, Any] = {
        "model_type": "SentenceTransformer",
        "prompts": declared.prompts.value,
        "default_prompt_name": declared.default_prompt_name.value,
        "similarity_fn_name": declared.similarity.value,
    }
    dimensions = declared.truncate_dim.value
    return content | ({"truncate_dim": dimensions} if dimensions else {})
