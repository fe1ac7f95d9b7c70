"""Jobs: the encodings of one request, and the future that gets their vectors."""

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from l2v.app.engine.vectors import Vectors
from l2v.models import Encoding

_arrivals = itertools.count()


class EncodingFailedError(Exception):
    """One encoding of a job fails even when it is run alone.

    Attributes:
        position: the position of the encoding in the job.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a job.

    Attributes:
        vectors: one float32 array per encoding, in order, as `Encoder.forward` returns them.
        queued: seconds spent waiting, before the first forward pass and between passes.
        computed: total seconds of the forward passes that had encodings of the job.
    """

    vectors: list[Vectors]
    queued: float
    computed: float


@dataclass(slots=True, eq=False)
class Job:
    """The encodings of one request. Any thread may settle a submitted job; only the engine thread changes it otherwise.

    The first outcome (a result, an error or a cancellation) settles the future, and later outcomes are dropped.

    Attributes:
        arrival: a number that increases with each new job.
        tokens: the number of tokens of all encodings.
        taken: how many of the encodings have been taken for batches.
        waiting_tokens: the number of tokens of the encodings that have not been taken.
    """

    encodings: Sequence[Encoding]
    arrival: int = field(default_factory=_arrivals.__next__)
    submitted: float = field(default_factory=time.monotonic)
    future: "Future[Result]" = field(default_factory=Future)
    vectors: dict[int, Vectors] = field(default_factory=dict)
    tokens: int = field(init=False)
    taken: int = 0
    waiting_tokens: int = field(init=False)
    computed: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.waiting_tokens = sum(map(len, self.encodings))

    @property
    def settled(self) -> bool:
        return self.future.done()

    @property
    def waiting_inputs(self) -> int:
        return len(self.encodings) - self.taken

    @property
    def next_tokens(self) -> int:
        """The number of tokens of the encoding that `take` takes next."""
        return len(self.encodings[self.taken])

    def take(self) -> "Item":
        """Takes the next encoding, for a batch."""
        self.waiting_tokens -= self.next_tokens
        self.taken += 1
        return Item(self, self.taken - 1)

    def put(self, position: int, vector: Vectors) -> None:
        """Stores the vector of one encoding, and settles the job if it was the last one missing."""
        self.vectors[position] = vector.copy()  # copy it, since a view would keep the whole batch in memory
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
    position: int

    @property
    def encoding(self) -> Encoding:
        return self.job.encodings[self.position]


JobBatch = list[Item]
