"""Jobs: what one request gives the engine, and the future that its outcome comes by."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2v.models import Encoding

Vectors = NDArray[np.float32]


class EncodingFailedError(Exception):
    """The model fails on one encoding of a job, computed alone.

    Attributes:
        place: where it stands in the job.
    """

    def __init__(self, message: str, place: int) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True, slots=True)
class Result:
    """What a job's future gives.

    Attributes:
        vectors: one float32 array an encoding, in their order, as `Encoder.forward` gives them.
        queued: seconds of waiting, for the first forward pass and between them.
        computed: seconds of the forward passes that the job took part in.
    """

    vectors: list[Vectors]
    queued: float
    computed: float


@dataclass(slots=True, eq=False)
class Job:
    """One request's encodings. Filled by the engine thread alone once it is submitted.

    Whoever settles the future first, by a result, an error or a cancel, wins; what comes later is dropped.
    """

    encodings: Sequence[Encoding]
    submitted: float = field(default_factory=time.monotonic)
    future: "Future[Result]" = field(default_factory=Future)
    vectors: dict[int, Vectors] = field(default_factory=dict)
    taken: int = 0
    waiting_tokens: int = field(init=False)
    computed: float = 0.0

    def __post_init__(self) -> None:
        self.waiting_tokens = sum(map(len, self.encodings))

    @property
    def settled(self) -> bool:
        return self.future.done()

    @property
    def waiting_inputs(self) -> int:
        return len(self.encodings) - self.taken

    def take(self) -> "Item":
        """The next encoding, for a batch."""
        self.waiting_tokens -= len(self.encodings[self.taken])
        self.taken += 1
        return Item(self, self.taken - 1)

    def put(self, place: int, vector: Vectors) -> None:
        """Records the vector of one encoding; the last one settles the job."""
        self.vectors[place] = vector.copy()  # as it is, it would hold the whole batch
        if len(self.vectors) == len(self.encodings):
            vectors = [self.vectors[each] for each in range(len(self.encodings))]
            with suppress(InvalidStateError):
                queued = max(0.0, time.monotonic() - self.submitted - self.computed)
                self.future.set_result(Result(vectors, queued, self.computed))

    def fail(self, error: Exception) -> None:
        with suppress(InvalidStateError):
            self.future.set_exception(error)


class Item(NamedTuple):
    """One encoding of a job, in a batch."""

    job: Job
    place: int

    @property
    def encoding(self) -> Encoding:
        return self.job.encodings[self.place]


Batch = list[Item]


def tokens_of(batch: Batch) -> int:
    return sum(len(item.encoding) for item in batch)
