"""The batches of a run: epoch after epoch of them, as many as it has steps."""

from collections.abc import Iterator
from itertools import count

from sentence_transformers.base.sampler import SetEpochMixin
from torch.utils.data import BatchSampler

from l2v.training.errors import TrainingError


class Endless(BatchSampler):
    """One long epoch for the trainer, which takes the length of an epoch for what it will be.

    Where duplicates are kept apart it is shorter, and by how much nobody knows before it is drawn; the trainer would
    stop early, and a resumed run would lose its place.

    Args:
        epochs: draws one epoch, whole batches only.
        steps: batches of the run.

    Raises:
        TrainingError: while it is drawn from, if an epoch has no batch.
    """

    def __init__(self, epochs: BatchSampler, steps: int) -> None:
        self._epochs, self._steps = epochs, steps
        self.batch_size, self.drop_last = epochs.batch_size, True

    def __iter__(self) -> Iterator[list[int]]:
        drawn = 0
        for epoch in count():
            if isinstance(self._epochs, SetEpochMixin):
                self._epochs.set_epoch(epoch)
            before = drawn
            for batch in self._epochs:
                if drawn == self._steps:
                    return
                drawn += 1
                yield batch
            if drawn == before:
                raise TrainingError(
                    f"no batch of {self.batch_size} rows can be drawn without duplicates: lower --batch-size, or give "
                    "more texts that differ"
                )

    def __len__(self) -> int:
        return self._steps
