"""The model being trained, as a sentence-transformers module that computes on packed rows."""

from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule

from l2v.models.batch import Batch
from l2v.training.student import Student

Features = dict[str, torch.Tensor]


class PackedEncoder(InputModule):
    """Packs padded rows, runs the model being trained, and pools as the served encoder does."""

    def __init__(self, student: Student) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = student.model
        self.head = student.encoder.head
        self.student = student

    def forward(self, features: Features, **kwargs: Any) -> Features:
        """`input_ids` [n, L], `attention_mask` [n, L] and `pooled` [n] → `sentence_embedding` [n, d] float32."""
        mask = features["attention_mask"].bool()
        lengths = mask.sum(1)
        # Sort by length, since attention computes adjacent sequences of equal length in one call.
        order = lengths.argsort(stable=True)
        ids = features["input_ids"][order][mask[order]]
        batch = Batch.of(ids, lengths[order], features["pooled"][order], ids.device)
        vectors = self.student.encoder.pool(self.student.hidden_states(self.model, batch), batch)
        return {"sentence_embedding": vectors[order.argsort()]}

    def get_embedding_dimension(self) -> int:
        return self.student.encoder.width

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        self.student.save(Path(output_path), self.student.weights())
