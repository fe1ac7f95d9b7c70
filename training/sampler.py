"""The batches of a run, drawn epoch after epoch."""

from collections.abc import Iterator
from itertools import count

from sentence_transformers.base.sampler import SetEpochMixin
from torch.utils.data import BatchSampler

from l2v.training.errors import TrainingError


class FixedLengthBatchSampler(BatchSampler):
    """Draws epochs until there is a batch for each step, and presents them as one long epoch.

    If batches must not contain duplicates, an epoch may have fewer batches than its `len` says. The trainer relies on
    `len`: if `len` is wrong, runs stop early or resume in the wrong place.

    Args:
        epochs: draws whole batches, one epoch at a time.
        steps: number of batches of the run.

    Raises:
        TrainingError: while iterating, if an epoch has no batch.
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
                    f"no batch of {self.batch_size} rows can be drawn without duplicates: lower --batch-size, or add "
                    "more distinct texts"
                )

    def __len__(self) -> int:
        return self._steps
