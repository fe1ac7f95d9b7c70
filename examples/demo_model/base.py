"""The base of the built-in model: its tokenizer, and causal language modelling from scratch."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, get_cosine_schedule_with_warmup

from examples.demo_model.machine import BFLOAT16
from l2v.training.folder import latest_checkpoint, move_files

BOS, EOS = "<s>", "</s>"
CONFIG = LlamaConfig(
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=1,
    pad_token_id=1,
)
_ROW, _ROWS = 128, 32
_RATE, _EMBEDDING_RATE, _WARMUP = 3e-3, 3e-4, 50
# Standard deviation of the initial embeddings: less than what the layers add to them, so that the layers can learn.
_EMBEDDING_STD = 0.1


def make_tokenizer(texts: Iterable[str], folder: Path) -> Tokenizer:
    """Train a byte-level BPE tokenizer, which can encode any text.

    It lowercases texts, since 8192 entries are too few for two spellings of a word. The prefix space gives a text the
    same tokens alone and after an instruction.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG.vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(f"{BOS} $A", f"{BOS} $A {BOS} $B", [(BOS, 0)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": EOS,
        "add_prefix_space": True,
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": CONFIG.max_position_embeddings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return tokenizer


def decode_vocabulary(tokenizer: Tokenizer) -> list[str]:
    """The text of each token in the vocabulary."""
    return [tokenizer.decode([token]).strip() or " " for token in range(tokenizer.get_vocab_size())]


def pretrain(
    texts: Sequence[str], tokenizer: Tokenizer, embeddings: NDArray[np.float32], folder: Path, steps: int, seed: int
) -> None:
    """Train on next token prediction, and write a bfloat16 checkpoint to `folder`.

    Args:
        texts: the texts, which are concatenated and cut into rows.
        tokenizer: from `make_tokenizer`.
        embeddings: [vocabulary, d], initial token embeddings: the teacher's vector of each token.
        folder: already contains the tokenizer. An interrupted run resumes from the checkpoints there.
        steps: number of steps, of 32 rows with 128 tokens.
        seed: seed for the initial weights and the data order.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(CONFIG)
    embedding = model.get_input_embeddings().weight
    embedding.data = torch.from_numpy(embeddings) * (_EMBEDDING_STD * CONFIG.hidden_size**0.5)
    rest = [weights for weights in model.parameters() if weights is not embedding]
    optimizer = torch.optim.AdamW(
        [{"params": rest, "weight_decay": 0.01}, {"params": [embedding], "lr": _EMBEDDING_RATE, "weight_decay": 0.0}],
        lr=_RATE,
        betas=(0.9, 0.98),
    )
    args = TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=_ROWS,
        bf16=BFLOAT16,
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=50,
        save_steps=200,
        save_total_limit=2,
        report_to="none",
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(_WARMUP, steps // 2), steps)
    trainer = Trainer(model, args, train_dataset=_rows(texts, tokenizer), optimizers=(optimizer, schedule))
    latest = latest_checkpoint(folder / "checkpoints", steps)
    trainer.train(resume_from_checkpoint=str(latest) if latest else None)
    model.to(torch.bfloat16).save_pretrained(folder / "part")
    (folder / "part/generation_config.json").unlink(missing_ok=True)
    move_files(folder / "part", folder, "model.safetensors")
    shutil.rmtree(folder / "checkpoints")


def _rows(texts: Sequence[str], tokenizer: Tokenizer) -> Dataset:
    """Rows that start with BOS, as every input of the encoder does."""
    ids = [i for text in tokenizer.encode_batch_fast(texts) for i in [*text.ids[1:], CONFIG.eos_token_id]]
    body = np.array(ids[: len(ids) // (_ROW - 1) * (_ROW - 1)]).reshape(-1, _ROW - 1)
    rows = np.pad(body, ((0, 0), (1, 0)), constant_values=CONFIG.bos_token_id)
    return Dataset.from_dict({"input_ids": rows, "labels": rows})
