"""Exporting the merged encoder to a folder that loads without peft and without its sources."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from l2v.models import checksums, permissions
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError, first_line
from l2v.models.reference_vector import ReferenceVector
from l2v.models.types import QUANTIZED

# sentence-transformers' nearest equivalents of the pooling modes.
_SENTENCE_TRANSFORMERS_POOLING = {
    "mean": "mean",
    "weighted_mean": "weightedmean",
    "eos_token": "lasttoken",
    "last_token": "lasttoken",
    "bos_token": "cls",
}

_CARD = """---
library_name: sentence-transformers
base_model: {base}
---

# Merged LLM2Vec encoder

Exported by `l2v export` from {sources}. To serve it with all its features:

    l2v serve --model FOLDER

sentence-transformers can load the folder too, with these differences:

{limits}
"""


def export(encoder: Encoder, out: Path) -> None:
    """Writes weights, tokenizer, `l2v.json`, sentence-transformers' files, a README, a reference vector and checksums.

    The folder is written under a temporary name and then renamed, so it is either complete or absent.

    Raises:
        ModelError: if `out` exists and is not an empty folder, if it cannot be written, if the weights are quantized or
            prepacked, or if the folder cannot express how the model is served.
    """
    if encoder.dtype in QUANTIZED:
        raise ModelError(
            f"{encoder.dtype} weights are quantized while loading and cannot be exported: use another dtype"
        )
    if encoder.prepacked:
        raise ModelError("prepacked weights cannot be exported: load the model with prepack=False")
    if encoder.declaration.semantics.value != "llm2vec" or encoder.causal or encoder.head.layers:
        raise ModelError(
            "an export holds a bidirectional encoder with LLM2Vec's semantics, and this model is served otherwise: "
            "serve its own repository, or set semantics=llm2vec and attention=bidirectional"
        )
    check_free(out)
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(encoder, partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"{out} could not be written ({reason}): check disk space and permissions") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raises `ModelError` if `out` exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} already exists: name a new folder")


def _write(encoder: Encoder, folder: Path) -> None:
    encoder.model.save_pretrained(folder)
    permissions.apply_umask(folder)
    named = encoder.tokenizer.named
    # sentence-transformers pads batches; like the reference, it uses the end token if there is no padding token.
    padding = {"pad_token": named["eos_token"]} if "eos_token" in named else {}
    replace(encoder.tokenizer, named=padding | dict(named)).write(folder)
    # `is_causal` makes transformers' own attention bidirectional, and so sentence-transformers'.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _json(folder / "config.json", config | {"is_causal": False, "_name_or_path": encoder.base})
    limits = _limits(encoder)
    _json(folder / "l2v.json", _l2v_json(encoder, limits))
    _json(folder / "modules.json", _modules())
    _json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_length})
    _json(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine", "prompts": {}})
    (folder / "1_Pooling").mkdir()
    _json(
        folder / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": encoder.dimensions,
            "pooling_mode": _SENTENCE_TRANSFORMERS_POOLING[encoder.pooling],
            "include_prompt": not encoder.tokenization.skip_instruction,
        },
    )
    sources = ", ".join(f"`{source['name']}`" for source in encoder.provenance)
    card = _CARD.format(base=encoder.base, sources=sources, limits="\n".join(f"- {limit}" for limit in limits))
    (folder / "README.md").write_text(card, encoding="utf-8")
    ReferenceVector.of(encoder).write(folder)
    checksums.write(folder)


def _l2v_json(encoder: Encoder, limits: list[str]) -> dict[str, Any]:
    tokenization = encoder.tokenization
    return {
        "format": 1,
        "base": encoder.base,
        "template": encoder.template,
        "pooling_mode": encoder.pooling,
        "max_length": tokenization.max_length,
        "doc_max_length": tokenization.doc_max_length,
        "skip_instruction": tokenization.skip_instruction,
        "sources": encoder.provenance,
        "sentence_transformers_limits": limits,
    }


def _limits(encoder: Encoder) -> list[str]:
    """The features of this encoder that sentence-transformers' configuration cannot express."""
    limits = [
        "the special token before the text is pooled unless a prompt is given",
        "an instruction is excluded from pooling only if it is passed as `prompt=`, not as part of the text",
        f"texts are not shortened to {encoder.tokenization.doc_max_length} tokens before the instruction is added",
    ]
    if encoder.template != "none":
        limits.append(f"the template `{encoder.template}` around the input is not applied")
    if encoder.tokenization.eos:
        limits.append(f"`{encoder.tokenization.eos.strip()}` is not appended for `{encoder.pooling}` pooling")
    return limits


def _modules() -> list[dict[str, Any]]:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"))
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
