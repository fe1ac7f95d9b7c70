"""Masked next token prediction (paper, section 2.2): a masked token is predicted at the position before it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy, linear
from transformers import TrainingArguments

from l2v.models.batch import Batch
from l2v.training import data, preflight
from l2v.training.arguments import arguments
from l2v.training.errors import TrainingError
from l2v.training.masking import mask
from l2v.training.recipes import Mntp
from l2v.training.student import Student
from l2v.training.trainer import AdapterTrainer


def build(recipe: Mntp) -> "MntpTrainer":
    """Build the trainer of a run. Raises `ModelError` for problems that the user can fix."""
    preflight.check(recipe)
    texts = data.texts(recipe.data, lines=False, columns=recipe.columns)
    student = Student.load(recipe)
    with PartialState().main_process_first():  # the other processes read the rows from the datasets cache
        rows = pack_texts(texts, student.encoder.tokenization.tokenizer, student.encoder.max_length)
    return MntpTrainer(recipe, student, rows)


def pack_texts(texts: Dataset, tokenizer: Tokenizer, row_length: int) -> Dataset:
    """Concatenate texts with their special tokens, and cut them into rows (reference `run_mntp.py`, `group_texts`).

    Returns:
        Rows of `input_ids` [row_length] and `lengths`, the number of tokens from each text, so that attention stays
        within each text. Texts are packed ten thousand at a time. The tokens after the last whole row are dropped; if
        there is no whole row, all tokens make one shorter row.

    Raises:
        TrainingError: if there is no token to predict.
    """

    def tokenize(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [row.ids for row in tokenizer.encode_batch_fast(batch["text"])]}

    def cut(batch: dict[str, Sequence[NDArray[np.int64]]]) -> dict[str, list[Any]]:
        ids = np.concatenate(batch["ids"])
        ends = list(accumulate(map(len, batch["ids"])))
        rows = range(0, max(1, len(ids) // row_length) * row_length, row_length)
        return {
            "input_ids": [ids[start : start + row_length] for start in rows],
            "lengths": [_lengths(ends, start, min(start + row_length, len(ids))) for start in rows],
        }

    columns = texts.column_names
    tokenized = texts.map(tokenize, batched=True, remove_columns=columns, desc="tokenize").with_format("numpy")
    rows = tokenized.map(cut, batched=True, batch_size=10_000, remove_columns=["ids"], desc="cut into rows")
    rows = rows.with_format(None)
    if not len(rows) or len(rows[0]["input_ids"]) < 2:
        raise TrainingError("the texts contain no token to predict")
    return rows


@dataclass(frozen=True)
class MaskedBatch:
    """A packed batch with m masked tokens, the positions where they are predicted [m], and their labels [m]."""

    batch: Batch
    positions: torch.Tensor
    labels: torch.Tensor


class MntpTrainer(AdapterTrainer):
    """Trains with cross-entropy over the masked tokens, using the base's own frozen head."""

    recipe: Mntp

    def __init__(self, recipe: Mntp, student: Student, rows: Dataset) -> None:
        self.recipe, self.student = recipe, student
        tokenizer = student.encoder.tokenization.tokenizer
        self._mask_id = _mask_id(tokenizer, recipe.mask_token, student)
        self._vocabulary = tokenizer.get_vocab_size()
        # Special tokens are never masked.
        self._special = torch.tensor(sorted(student.encoder.tokenizer.special_ids), dtype=torch.int64)
        self._head = student.head()
        super().__init__(
            model=student.model,
            args=arguments(recipe, TrainingArguments),
            train_dataset=rows,
            data_collator=_concatenate,
        )

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        """The mean loss of a micro batch. Masks are drawn here, so that a resumed run draws the same masks."""
        return self.loss_of(model, self.masked(inputs))[0]

    def masked(self, inputs: dict[str, torch.Tensor]) -> MaskedBatch:
        """Mask tokens of a packed batch."""
        ids, lengths = inputs["input_ids"], inputs["lengths"]
        first = torch.zeros_like(ids, dtype=torch.bool)
        first[lengths.cumsum(0) - lengths] = True
        maskable = ~first & ~torch.isin(ids, self._special.to(ids.device))
        masked = mask(
            ids,
            maskable,
            probability=self.recipe.masking,
            mask_id=self._mask_id,
            vocabulary=self._vocabulary,
            all_mask=self.recipe.collator == "all_mask",
        )
        batch = Batch.of(masked.input_ids, lengths, torch.ones_like(lengths), ids.device)
        return MaskedBatch(batch, masked.positions, masked.labels)

    def loss_of(self, model: torch.nn.Module, masked: MaskedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and the masked tokens' logits [m, vocabulary]; all tokens' logits would take too much memory."""
        states = self.student.hidden_states(model, masked.batch)[masked.positions]
        self._head = self._head.to(states.device)
        logits = linear(states.to(self._head.dtype), self._head).float()
        return cross_entropy(logits, masked.labels), logits


def _lengths(ends: list[int], start: int, end: int) -> list[int]:
    """How many tokens of each text lie in [start, end). `ends` holds the position after the last token of each text."""
    inside = ends[bisect_right(ends, start) : bisect_right(ends, end - 1)]
    return [right - left for left, right in pairwise([start, *inside, end])]


def _concatenate(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Collate the rows of a micro batch into one packed row."""
    return {name: torch.tensor([i for row in rows for i in row[name]]) for name in ("input_ids", "lengths")}


def _mask_id(tokenizer: Tokenizer, name: str, student: Student) -> int:
    """The id of the mask token.

    Raises:
        TrainingError: if the tokenizer has no such token.
    """
    named = student.encoder.tokenizer.named
    token = {"_": "_", "mask": named.get("mask_token"), "eos": named.get("eos_token")}[name]
    found = tokenizer.token_to_id(token) if token else None
    if found is None:
        raise TrainingError(
            f"the tokenizer of {student.base.name} has no token for --mask-token {name}: choose another value"
        )
    return int(found)
