"""SimCSE and supervised contrastive learning (paper, sections 2.3 and 4), with sentence-transformers' trainer.

The trainer draws batches without duplicates, each from one dataset; the losses gather vectors with their gradients
across devices and provide the gradient cache. Tokenization, attention and pooling are the same as in serving.
"""

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.training_args import BatchSamplers, MultiDatasetBatchSamplers
from torch.utils.data import BatchSampler

from l2v.models import Input, InputError
from l2v.training import data, data_sources, preflight
from l2v.training.arguments import arguments
from l2v.training.collator import InputCollator
from l2v.training.data_sources import Example
from l2v.training.errors import TrainingError
from l2v.training.losses import loss_for
from l2v.training.packed_encoder import PackedEncoder
from l2v.training.recipes import Contrastive, Simcse, Supervised
from l2v.training.sampler import FixedLengthBatchSampler
from l2v.training.student import Student
from l2v.training.trainer import AdapterTrainer


def build(recipe: Simcse | Supervised) -> "ContrastiveTrainer":
    """Build the trainer of a run. Raises `ModelError` for problems that the user can fix."""
    preflight.check(recipe)
    if isinstance(recipe, Simcse):
        rows: Dataset | DatasetDict = data.texts(recipe.data, lines=True, columns=recipe.columns)
        student = Student.load(recipe, recipe.dropout)
        collator = InputCollator(student, lambda row: [Input(row["text"])] * 2)
    else:
        datasets = {source: data.pairs(source, recipe.columns) for source in recipe.data}
        named = {f"{i}-{Path(source).stem}": part for i, (source, part) in enumerate(datasets.items())}
        rows = DatasetDict(named) if len(named) > 1 else next(iter(named.values()))
        _check_fields(datasets, recipe)
        student = Student.load(recipe)
        _check_sizes(datasets, student)
        collator = InputCollator(
            student, lambda row: data.pair_inputs(row, 0 if "score" in row else recipe.hard_negatives)
        )
    return ContrastiveTrainer(recipe, student, rows, collator)


def _check_fields(datasets: dict[str, Dataset], recipe: Supervised) -> None:
    """Check that all rows have the fields that the run uses."""
    for source, rows in datasets.items():
        if "score" in rows.column_names:
            if recipe.micro_batch:
                raise TrainingError(
                    f"{source}: --micro-batch cannot be used with scores: the gradient cache supports InfoNCE only"
                )
            continue
        if recipe.hard_negatives and not all(len(negatives) for negatives in rows["negatives"]):
            index = next(i for i, negatives in enumerate(rows["negatives"]) if not len(negatives))
            raise TrainingError(
                f"{data_sources.locate(source, index)}: the row has no negatives: add some to each row, or set "
                "--hard-negatives 0"
            )
        if recipe.distillation and "vectors" not in rows.column_names:
            raise TrainingError(f"{source}: the rows have no teacher's vectors, which --distillation needs")


def _check_sizes(datasets: dict[str, Dataset], student: Student) -> None:
    """Check that every instruction leaves room for a text, and that a teacher's vectors have the model's dimensions."""
    dimensions = student.encoder.dimensions
    for source, rows in datasets.items():
        if "vectors" in rows.column_names and (found := len(rows[0]["vectors"][0])) != dimensions:
            raise TrainingError(
                f"{source}: the teacher's vectors have {found} dimensions, but the model has {dimensions}: "
                "reduce them first, for example by PCA"
            )
        for instruction in rows.unique("instruction"):
            try:
                student.encoder.tokenize([Input("a", instruction)])
            except InputError as error:
                index = rows["instruction"].index(instruction)
                raise TrainingError(f"{data_sources.locate(source, index)}: {error}") from error


class ContrastiveTrainer(AdapterTrainer, SentenceTransformerTrainer):
    """Trains on batches of one dataset each, with the loss of that dataset."""

    def __init__(
        self, recipe: Contrastive, student: Student, rows: Dataset | DatasetDict, collator: InputCollator
    ) -> None:
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
            data_collator=collator,
            loss={name: loss_for(recipe, model, args.world_size, part) for name, part in rows.items()}
            if isinstance(rows, DatasetDict)
            else loss_for(recipe, model, args.world_size, rows),
        )
        for name, part in (rows if isinstance(rows, DatasetDict) else {"the data": rows}).items():
            if len(part) < recipe.batch_size:
                raise TrainingError(
                    f"{name}: {len(part)} rows are too few for one batch of {recipe.batch_size} (--batch-size)"
                )

    def get_batch_sampler(self, dataset: Dataset, *args: Any, **kwargs: Any) -> BatchSampler:
        epochs = super().get_batch_sampler(self._compared(dataset), *args, **kwargs)
        assert epochs is not None  # it is None only for datasets without a length
        several = isinstance(self.train_dataset, DatasetDict)
        return epochs if several else FixedLengthBatchSampler(epochs, self.recipe.steps)

    def _compared(self, rows: Dataset) -> Dataset:
        """The rows, with a column for each negative that the run uses, so that the sampler compares negatives too.

        No text may repeat in a batch: if a text were the negative of one row and the positive of another, it would be
        pushed away from its own query.
        """
        count = self.recipe.hard_negatives if isinstance(self.recipe, Supervised) else 0
        if not count or "score" in rows.column_names:
            return rows

        def used(row: Example) -> Example:
            texts = [each.text for each in data.pair_inputs(row, count)[2:]]
            return {f"negative {number}": text for number, text in enumerate(texts, 1)}

        return rows.map(used, remove_columns=["negatives"], desc="comparing negatives")

    def get_multi_dataset_batch_sampler(self, *args: Any, **kwargs: Any) -> BatchSampler:
        return FixedLengthBatchSampler(super().get_multi_dataset_batch_sampler(*args, **kwargs), self.recipe.steps)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Skip sentence-transformers' model card: the run writes its own card (`l2v.training.card`)."""
