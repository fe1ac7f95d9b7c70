"""SimCSE and supervised contrastive learning (paper, sections 2.3 and 4) on sentence-transformers' trainer and losses.

Its trainer brings batches of one dataset each, free of duplicates, and its losses the gathering across devices with
gradients and the gradient cache. Tokens, attention and pooling are the served encoder's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.base.modules import InputModule
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.training_args import BatchSamplers, MultiDatasetBatchSamplers
from torch.nn.functional import cosine_similarity
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import BatchSampler

from l2v.models import Input, InputError
from l2v.models.batch import Batch
from l2v.models.pooling import pool
from l2v.training import data, sources
from l2v.training.endless import Endless
from l2v.training.errors import TrainingError
from l2v.training.recipes import Contrastive, Simcse, Supervised
from l2v.training.running import Saving, arguments, prepare
from l2v.training.sources import Row
from l2v.training.student import Student

Features = dict[str, torch.Tensor]


def train(recipe: Simcse | Supervised) -> None:
    """Runs the recipe; raises `ModelError` for what the person who started it can mend."""
    build(recipe).run()


def build(recipe: Simcse | Supervised) -> "ContrastiveTrainer":
    """The trainer of a recipe, ready to run."""
    prepare(recipe)
    if isinstance(recipe, Simcse):
        rows: Dataset | DatasetDict = data.texts(recipe.data, lines=True)
        student = Student.of(recipe, recipe.dropout)
        collate = Collate(student, lambda row: [Input(row["text"])] * 2)
    else:
        datasets = {source: data.pairs(source) for source in recipe.data}
        named = {f"{i}-{Path(source).stem}": part for i, (source, part) in enumerate(datasets.items())}
        rows = DatasetDict(named) if len(named) > 1 else next(iter(named.values()))
        _check(datasets, recipe)
        student = Student.of(recipe)
        _check_against(datasets, student)
        collate = Collate(student, lambda row: data.sides(row, 0 if "score" in row else recipe.hard_negatives))
    return ContrastiveTrainer(recipe, student, rows, collate)


def _check(datasets: dict[str, Dataset], recipe: Supervised) -> None:
    """Every row must bring what the recipe takes of it."""
    for source, rows in datasets.items():
        if "score" in rows.column_names:
            if recipe.micro_batch:
                raise TrainingError(
                    f"{source}: --micro-batch goes without scores: the gradient cache knows one loss only"
                )
            continue
        if recipe.hard_negatives and not all(len(negatives) for negatives in rows["negatives"]):
            index = next(i for i, negatives in enumerate(rows["negatives"]) if not len(negatives))
            raise TrainingError(
                f"{sources.place(source, index)}: no negatives; give each row some, or set --hard-negatives 0"
            )
        if recipe.distillation and "vectors" not in rows.column_names:
            raise TrainingError(f"{source}: its rows have no vectors of a teacher, which --distillation needs")


def _check_against(datasets: dict[str, Dataset], student: Student) -> None:
    """No instruction may fill a row, or no text has room behind it; a teacher's vectors are of the model's size."""
    dimensions = student.encoder.dimensions
    for source, rows in datasets.items():
        if "vectors" in rows.column_names and (found := len(rows[0]["vectors"][0])) != dimensions:
            raise TrainingError(
                f"{source}: the teacher's vectors have {found} dimensions, the model {dimensions}: "
                "reduce them first, by PCA"
            )
        for instruction in rows.unique("instruction"):
            try:
                student.encoder.tokenize([Input("a", instruction)])
            except InputError as error:
                index = rows["instruction"].index(instruction)
                raise TrainingError(f"{sources.place(source, index)}: {error}") from error


class PackedEncoder(InputModule):
    """The student as a module of sentence-transformers: padded rows in, packed for the model, pooled vectors out."""

    def __init__(self, student: Student) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = student.model
        self.student = student

    def forward(self, features: Features, **kwargs: Any) -> Features:
        """`input_ids` [n, L], `attention_mask` [n, L] and `pooled` [n] → `sentence_embedding` [n, d] float32."""
        seen = features["attention_mask"].bool()
        lengths = seen.sum(1)
        # Rows of one length stand side by side, where attention computes them in one go.
        order = lengths.argsort(stable=True)
        ids = features["input_ids"][order][seen[order]]
        batch = Batch.of(ids, lengths[order], features["pooled"][order], ids.device)
        vectors = pool(self.student.hidden_states(self.model, batch), batch, self.student.encoder.pooling)
        return {"sentence_embedding": vectors[order.argsort()]}

    def get_embedding_dimension(self) -> int:
        return self.student.encoder.dimensions

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        self.student.save(Path(output_path), self.student.weights())


class Collate:
    """Rows → features of each column: query, positive, and negatives."""

    # What no two rows of a batch need to differ in.
    valid_label_columns = ("negatives", "instruction", "symmetric", "vectors", "score")

    def __init__(self, student: Student, sides: Callable[[Row], list[Input]]) -> None:
        self.tokenization, self.sides = student.encoder.tokenization, sides

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        batch: dict[str, Any] = {"dataset_name": rows[0]["dataset_name"]} if "dataset_name" in rows[0] else {}
        columns = zip(*(self.sides(row) for row in rows), strict=True)
        for number, column in enumerate(columns):
            try:
                encodings = self.tokenization(column)
            except InputError as error:
                raise TrainingError(f"a text cannot be encoded: {error}") from error
            ids = [torch.tensor(encoding.ids) for encoding in encodings]
            batch[f"{number}_input_ids"] = pad_sequence(ids, batch_first=True)
            batch[f"{number}_attention_mask"] = pad_sequence([torch.ones_like(i) for i in ids], batch_first=True)
            batch[f"{number}_pooled"] = torch.tensor([max(1, encoding.pooled) for encoding in encodings])
        if "score" in rows[0]:
            batch["label"] = torch.tensor([row["score"] for row in rows])
        elif "vectors" in rows[0]:
            batch["label"] = torch.tensor([row["vectors"] for row in rows])
        return batch


class Distilled(torch.nn.Module):
    """A contrastive loss, mixed with the distance of queries and positives to the vectors of a teacher."""

    def __init__(self, model: SentenceTransformer, contrastive: MultipleNegativesRankingLoss, share: float) -> None:
        super().__init__()
        self.model, self.contrastive, self.share = model, contrastive, share

    def forward(self, features: Sequence[Features], labels: torch.Tensor) -> torch.Tensor:
        """`labels` [n, 2, d] are the teacher's."""
        embeddings = embed_columns(self.model, features)
        distance = 1 - cosine_similarity(torch.stack(embeddings[:2], 1), labels.to(embeddings[0].dtype), dim=-1).mean()
        if self.share == 1:
            return distance
        return (1 - self.share) * self.contrastive.compute_loss_from_embeddings(
            embeddings, labels
        ) + self.share * distance


class ContrastiveTrainer(Saving, SentenceTransformerTrainer):
    """Each batch of one dataset: InfoNCE over that of all devices, or, where rows have a score, its distance."""

    def __init__(self, recipe: Contrastive, student: Student, rows: Dataset | DatasetDict, collate: Collate) -> None:
        self.recipe, self.student = recipe, student
        model = SentenceTransformer(modules=[PackedEncoder(student)], device="cpu")
        args = arguments(
            recipe,
            SentenceTransformerTrainingArguments,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
        )
        super().__init__(
            model=model,
            args=args,
            train_dataset=rows,
            data_collator=collate,
            loss={name: _loss(recipe, model, args.world_size, part) for name, part in rows.items()}
            if isinstance(rows, DatasetDict)
            else _loss(recipe, model, args.world_size, rows),
        )
        self._check_rows(rows if isinstance(rows, DatasetDict) else {"the data": rows})

    def get_batch_sampler(self, dataset: Dataset, *args: Any, **kwargs: Any) -> BatchSampler:
        epochs = super().get_batch_sampler(dataset, *args, **kwargs)
        assert epochs is not None  # it is so for data without a length alone
        several = isinstance(self.train_dataset, DatasetDict)
        return epochs if several else Endless(epochs, self.recipe.steps)

    def get_multi_dataset_batch_sampler(self, *args: Any, **kwargs: Any) -> BatchSampler:
        return Endless(super().get_multi_dataset_batch_sampler(*args, **kwargs), self.recipe.steps)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """The run has a card of its own."""

    def _check_rows(self, datasets: dict[str, Dataset]) -> None:
        for name, rows in datasets.items():
            if len(rows) < self.recipe.batch_size:
                raise TrainingError(
                    f"{name}: {len(rows)} rows are fewer than the {self.recipe.batch_size} of a batch (--batch-size)"
                )


def _loss(recipe: Contrastive, model: SentenceTransformer, devices: int, rows: Dataset) -> torch.nn.Module:
    if "score" in rows.column_names:
        return CosineSimilarityLoss(model)
    gather = devices > 1
    share = recipe.distillation if isinstance(recipe, Supervised) else 0.0
    if recipe.micro_batch:
        if share:
            raise TrainingError("--micro-batch goes without --distillation: the gradient cache knows one loss only")
        return CachedMultipleNegativesRankingLoss(
            model, scale=recipe.scale, mini_batch_size=recipe.micro_batch, gather_across_devices=gather
        )
    contrastive = MultipleNegativesRankingLoss(model, scale=recipe.scale, gather_across_devices=gather)
    return Distilled(model, contrastive, share) if share else contrastive
