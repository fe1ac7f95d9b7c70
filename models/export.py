"""The merged encoder as a folder of its own, which serves without peft and without its sources."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from l2v.models import checksums, rights
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError, first_line
from l2v.models.known import Known
from l2v.models.tokenizer import write_tokenizer
from l2v.models.types import ROUNDED

# How far sentence-transformers' pooling can express ours.
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

Exported by `l2v export` from {sources}. Serve it with its full meaning:

    l2v serve --model FOLDER

sentence-transformers loads the folder too, with these differences:

{limits}
"""


def export(encoder: Encoder, out: Path) -> None:
    """Writes safetensors, tokenizer, `l2v.json`, what sentence-transformers needs, a README, and how to check them all.

    The folder appears whole or not at all: it is written under another name first.

    Raises:
        ModelError: if `out` exists and is not an empty folder, or cannot be written, or the weights are packed
            or of 8 bits.
    """
    if encoder.dtype in ROUNDED:
        raise ModelError(f"weights of {encoder.dtype} are made when a model is loaded: export it in another dtype")
    if encoder.packed:
        raise ModelError("packed weights cannot be written: load the model with packed=False")
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
        raise ModelError(f"{out} could not be written ({reason}): check space and rights") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(out: Path) -> None:
    """Raises `ModelError` if an export cannot be put there: if it exists and is not an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already: name a new folder")


def _write(encoder: Encoder, folder: Path) -> None:
    encoder.model.save_pretrained(folder)
    rights.share(folder)
    tokenizer = copy.deepcopy(encoder.tokenizer)
    # sentence-transformers pads, and pads like the reference where the tokenizer does not say how.
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    write_tokenizer(tokenizer, encoder.tokenization.tokenizer, folder)
    # What makes transformers' own attention, and so sentence-transformers', bidirectional.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _json(folder / "config.json", config | {"is_causal": False, "_name_or_path": encoder.base})
    limits = _limits(encoder)
    _json(folder / "l2v.json", _own(encoder, limits))
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
    listed = "\n".join(f"- {limit}" for limit in limits)
    card = _CARD.format(base=encoder.base, sources=sources, limits=listed)
    (folder / "README.md").write_text(card, encoding="utf-8")
    Known.of(encoder).write(folder)
    checksums.write(folder)


def _own(encoder: Encoder, limits: list[str]) -> dict[str, Any]:
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
    """What sentence-transformers' pooling and prompts cannot say of this encoder."""
    limits = [
        "it pools the special token in front of the text unless a prompt is given",
        "an instruction is left out of pooling only when it is given as `prompt=`, not as part of the text",
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
