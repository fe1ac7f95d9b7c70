"""The data collator of the contrastive stages."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from l2v.models import Input, InputError
from l2v.training.data_sources import Example
from l2v.training.errors import TrainingError
from l2v.training.student import Student


class InputCollator:
    """Tokenizes examples into padded features, with one column each for the query, the positive and each negative.

    Args:
        student: provides the tokenization.
        inputs_of: returns the inputs of an example, one per column.
    """

    # Columns whose values may repeat in a batch without being duplicates.
    valid_label_columns = ("negatives", "instruction", "symmetric", "vectors", "score")

    def __init__(self, student: Student, inputs_of: Callable[[Example], list[Input]]) -> None:
        self.tokenization, self.inputs_of = student.encoder.tokenization, inputs_of

    def __call__(self, rows: Sequence[Example]) -> dict[str, Any]:
        batch: dict[str, Any] = {"dataset_name": rows[0]["dataset_name"]} if "dataset_name" in rows[0] else {}
        columns = zip(*(self.inputs_of(row) for row in rows), strict=True)
        for number, column in enumerate(columns):
            try:
                encodings = self.tokenization(column)
            except InputError as error:
                raise TrainingError(f"a text cannot be encoded: {error}") from error
            ids = [torch.tensor(encoding.ids) for encoding in encodings]
            batch[f"{number}_input_ids"] = pad_sequence(ids, batch_first=True)
            batch[f"{number}_attention_mask"] = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
            batch[f"{number}_pooled"] = torch.tensor([max(1, encoding.pooled) for encoding in encodings])
        for label in ("score", "vectors"):
            if label in rows[0]:
                batch["label"] = torch.tensor([row[label] for row in rows])
                break
        return batch
