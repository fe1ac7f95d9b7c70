"""The training stages, from data to the finished stack. Each writes a folder, and is skipped if that is complete."""

import json
import logging
import random
import shutil
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel

from examples.demo_model import base, teacher
from examples.demo_model.corpus import Graded, Pair, read
from examples.demo_model.machine import BFLOAT16
from l2v.models import permissions
from l2v.training import contrastive, mntp
from l2v.training.recipes import PROJECTIONS, Mntp, Simcse, Supervised

logger = logging.getLogger(__name__)

BASE_NAME = "l2v/demo-base"
# Maximum number of texts from pairs that are added to the running text.
_MAX_PAIR_TEXTS = 100_000


@dataclass(frozen=True)
class Steps:
    """Number of training steps of each stage."""

    base: int = 1000
    mntp: int = 400
    simcse: int = 60
    supervised: int = 5000
    graded: int = 300


def make(data: Path, work: Path, steps: Steps, pairs: int | None = None) -> None:
    """Train all stages. The same call resumes after an interruption.

    Args:
        data: see `corpus.read`.
        work: output folder for `base/`, `mntp/`, `simcse/`, `supervised/`, `graded/` and their training data.
        steps: of each stage.
        pairs: number of pairs to train on; all if None.
    """
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "pairs.parquet").is_file():
        _prepare(data, work, pairs)
    if not (work / "base/model.safetensors").is_file():
        texts = [json.loads(line)["text"] for line in (work / "texts.jsonl").read_text(encoding="utf-8").splitlines()]
        tokenizer = Tokenizer.from_file(str(work / "base/tokenizer.json"))
        base.pretrain(texts, tokenizer, np.load(work / "words.npy"), work / "base", steps.base, seed=0)
    for recipe in (
        mntp_recipe(work, "mntp", steps.mntp),
        simcse_recipe(work, "simcse", steps.simcse),
        supervised_recipe(work, "supervised", steps.supervised),
        graded_recipe(work, "graded", steps.graded),
    ):
        if not (recipe.out / "adapter_model.safetensors").is_file():
            logger.info("stage %s", recipe.out.name)
            trainer = mntp.build(recipe) if isinstance(recipe, Mntp) else contrastive.build(recipe)
            trainer.run()


def mntp_recipe(work: Path, out: str, steps: int, **more: Any) -> Mntp:
    settings = {"lora_r": 16, "lora_alpha": 32, "max_length": 128, "batch_size": 32, "learning_rate": 2e-3}
    return Mntp(**_common(work, out, steps) | {"data": (str(work / "texts.jsonl"),)} | settings | more)


def simcse_recipe(work: Path, out: str, steps: int) -> Simcse:
    settings = {"data": (str(work / "plain.txt"),), "adapters": (str(work / "mntp"),), "learning_rate": 3e-4}
    return Simcse(**_common(work, out, steps) | settings)


def supervised_recipe(work: Path, out: str, steps: int, **more: Any) -> Supervised:
    """The distillation stage. Its rank is high, since a base of this size knows little about the meaning of words."""
    settings = {
        "data": (str(work / "pairs.parquet"),),
        "adapters": (str(work / "mntp"),),
        "lora_r": 64,
        "lora_alpha": 128,
        "lora_targets": (*PROJECTIONS, "embed_tokens"),
        "max_length": 96,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "hard_negatives": 0,
        "distillation": 1.0,
    }
    return Supervised(**_common(work, out, steps) | settings | more)


def graded_recipe(work: Path, out: str, steps: int) -> Supervised:
    """The stage that learns similarities given by people, on top of the distillation stage.

    An equal number of pairs graded by the teacher keeps the model from forgetting what people did not grade: other
    kinds of texts, and unrelated ones.
    """
    settings = {
        "data": (str(work / "graded.jsonl"), str(work / "taught.jsonl")),
        "adapters": (str(work / "mntp"), str(work / "supervised")),
        "lora_r": 8,
        "lora_alpha": 16,
        "batch_size": 64,
        "distillation": 0.0,
    }
    return supervised_recipe(work, out, steps, **settings)


def _common(work: Path, out: str, steps: int) -> dict[str, Any]:
    return {
        "out": work / out,
        "model": str(work / "base"),
        "dtype": "bfloat16" if BFLOAT16 else "float32",
        "lora_dropout": 0.0,
        "steps": steps,
        "warmup_steps": min(50, steps // 2),
        "save_steps": 200,
        "seed": 0,
    }


def _prepare(data: Path, work: Path, most: int | None) -> None:
    """Read the data, train the tokenizer, and compute the teacher's vectors."""
    corpus = read(data)
    pairs = corpus.pairs[:most]
    pair_texts = list(dict.fromkeys(chain.from_iterable(pairs)))
    texts = corpus.texts + pair_texts[:_MAX_PAIR_TEXTS]
    tokenizer = base.make_tokenizer(corpus.texts + pair_texts, work / "base")
    vectors = teacher.embed(pair_texts, work / "said.f16")
    directions = teacher.principal_directions(vectors, base.CONFIG.hidden_size)
    token_vectors = teacher.embed(base.decode_vocabulary(tokenizer), work / "words.f16")
    np.save(work / "words.npy", teacher.reduce(token_vectors, directions))
    (work / "plain.txt").write_text("\n".join(pair_texts), encoding="utf-8")
    (work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    reduced = dict(zip(pair_texts, teacher.reduce(vectors, directions), strict=True))
    _write_graded(corpus.graded, work / "graded.jsonl")
    _write_graded(_grade(pairs[: len(corpus.graded)], reduced), work / "taught.jsonl")
    _write_pairs(pairs, reduced, work / "pairs.parquet")


def _grade(pairs: list[Pair], vectors: dict[str, Any]) -> list[Graded]:
    """Pairs with the teacher's cosine. Every second pair gets the second text of a random pair."""
    others = list(range(len(pairs)))
    random.Random(0).shuffle(others)
    mixed = [(a, pairs[i if i % 2 else others[i]][1]) for i, (a, _) in enumerate(pairs)]
    # The product of a text with itself may be slightly more than 1.
    return [(a, b, min(1.0, float(vectors[a] @ vectors[b]))) for a, b in mixed]


def _write_graded(graded: list[Graded], file: Path) -> None:
    rows = (json.dumps({"query": a, "positive": b, "score": score}) for a, b, score in graded)
    file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _write_pairs(pairs: list[Pair], vectors: dict[str, Any], file: Path) -> None:
    rows = np.stack([vectors[text] for pair in pairs for text in pair])
    inner = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    queries, positives = zip(*pairs, strict=True)
    table = {"query": queries, "positive": positives, "vectors": pa.FixedSizeListArray.from_arrays(inner, 2)}
    part = file.with_suffix(".part")
    pq.write_table(pa.table(table), part)
    part.rename(file)


def publish(work: Path, out: Path) -> None:
    """Write the stack to `out` in bfloat16, in the layout of published repositories. Replaces an earlier stack."""
    _combine(work, ("supervised", "graded"), "contrastive")
    for stage, name in (("base", "base"), ("mntp", "mntp"), ("contrastive", "contrastive")):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if stage == "base":
            for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
                shutil.copyfile(work / stage / file, folder / file)
            continue
        weights = load_file(work / stage / "adapter_model.safetensors")
        small = {key: weight.to(torch.bfloat16) for key, weight in weights.items()}
        save_file(small, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        permissions.apply_umask(folder)
        config = json.loads((work / stage / "adapter_config.json").read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = BASE_NAME
        _dump(config, folder / "adapter_config.json")
    # Published MNTP repositories also contain the tokenizer, and a config that names remote code.
    config = json.loads((out / "base/config.json").read_text(encoding="utf-8"))
    config |= {"_name_or_path": BASE_NAME, "architectures": ["LlamaEncoderModel"]}
    config["auto_map"] = {"AutoModel": "modeling_llama_encoder.LlamaEncoderModel"}
    _dump(config, out / "mntp/config.json")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(out / "base" / file, out / "mntp" / file)


def _combine(work: Path, stages: tuple[str, ...], name: str) -> None:
    """Combine adapters that were trained on top of each other. Concatenated low-rank matrices add up their changes."""
    adapted = PeftModel.from_pretrained(
        AutoModel.from_pretrained(work / "base"), str(work / stages[0]), adapter_name=stages[0]
    )
    for stage in stages[1:]:
        adapted.load_adapter(str(work / stage), stage)
    adapted.add_weighted_adapter(list(stages), [1.0] * len(stages), name, combination_type="cat")
    adapted.save_pretrained(str(work), selected_adapters=[name], save_embedding_layers=False)
    (work / "README.md").unlink(missing_ok=True)


def _dump(content: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
