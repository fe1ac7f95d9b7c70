"""Exports an encoder to a folder that l2v and other servers load without peft and without the encoder's sources."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from l2v.models import checksums, permissions
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError, first_line
from l2v.models.export_card import write_card
from l2v.models.export_check import differences
from l2v.models.export_config import export_config
from l2v.models.new_folder import check_free
from l2v.models.quiet import quiet
from l2v.models.reference_vector import ReferenceVector
from l2v.models.resolution import FORMAT
from l2v.models.sentence_transformers.writing import write_json, write_layout
from l2v.models.types import QUANTIZED


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
    if encoder.adapters.modules:
        raise ModelError("LoRA modules are not merged and cannot be exported: name one among `adapters` instead")
    if encoder.declaration.semantics.value == "llm2vec" and encoder.head.layers:
        raise ModelError(
            f"{encoder.head.layers[0].config.folder}, a layer after the decoder, cannot be exported with LLM2Vec's "
            "semantics: set semantics to sentence-transformers"
        )
    check_free(out := out.absolute())
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


def _write(encoder: Encoder, folder: Path) -> None:
    with quiet():
        encoder.model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", export_config(encoder, config))
    _write_tokenizer(encoder, folder)
    write_layout(encoder, folder)
    write_json(folder / "l2v.json", _l2v_json(encoder))
    permissions.apply_umask(folder)
    card = write_card(encoder, differences(encoder, folder))
    (folder / "README.md").write_text(card, encoding="utf-8")
    ReferenceVector.of(encoder).write(folder)
    checksums.write(folder)


def _write_tokenizer(encoder: Encoder, folder: Path) -> None:
    tokenizer = encoder.tokenizer
    # Other servers pad batches. As in the reference, the end token is the padding token unless the tokenizer
    # names a padding token.
    padding = {"pad_token": tokenizer.named["eos_token"]} if "eos_token" in tokenizer.named else {}
    kept = dict(tokenizer.kept) | {"model_max_length": encoder.max_length}
    replace(tokenizer, named=padding | dict(tokenizer.named), kept=kept).write(folder)


def _l2v_json(encoder: Encoder) -> dict[str, Any]:
    """The settings that the other files cannot express; with LLM2Vec's semantics, all settings."""
    tokenization, declared = encoder.tokenization, encoder.declaration
    content = {
        "format": FORMAT,
        "base": encoder.base,
        "sources": encoder.provenance,
        "semantics": declared.semantics.value,
        "template": encoder.template,
    }
    if declared.semantics.value == "llm2vec":
        return content | {
            "attention": declared.attention.value,
            "pooling_mode": encoder.pooling,
            "max_length": tokenization.max_length,
            "doc_max_length": tokenization.doc_max_length,
            "skip_instruction": tokenization.skip_instruction,
        }
    if encoder.pooling == "eos_token":
        content["pooling_mode"] = encoder.pooling
    if tokenization.doc_max_length != tokenization.max_length:
        content["doc_max_length"] = tokenization.doc_max_length
    if declared.int8_scale.value != "maximum":
        content["int8_scale"] = declared.int8_scale.value
    return content
