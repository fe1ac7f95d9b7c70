"""The queue of jobs, and the choice of encodings for the next batch."""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from l2v.app.engine.jobs import Job, JobBatch, Result

# A batch of this share of the token budget is about as fast per token as a full batch.
_EFFICIENT_SHARE = 0.25


class JobQueue:
    """Fills half of each batch from the shortest jobs, and half from the oldest.

    So a short job is in the next batch unless other jobs that are as short fill half of that batch. Once a long job is
    the oldest, that job gets half of each batch, whatever arrives later. Lengths are compared by power of two, so that
    jobs of similar length finish in the order of their arrival.

    A batch with short jobs is kept small, so that the short jobs finish soon. Other jobs may at most double the batch's
    tokens, or fill the batch to `_EFFICIENT_SHARE` of the budget if that allows more tokens.

    The queue has no clock, no thread and no lock.

    Attributes:
        tokens: the number of waiting tokens.
        inputs: the number of waiting inputs.
    """

    def __init__(self) -> None:
        self.tokens = self.inputs = 0
        self._by_age: OrderedDict[Future[Result], Job] = OrderedDict()
        # Sorted by length, compared by power of two, then by arrival. A heap would not allow quick removal of any job.
        self._by_length: list[tuple[int, int, Job]] = []
        self._oldest_first = False

    def __iter__(self) -> Iterator[Job]:
        """The jobs, oldest first."""
        return iter(self._by_age.values())

    def add(self, job: Job) -> None:
        self._by_age[job.future] = job
        insort(self._by_length, _rank(job))
        self.tokens += job.waiting_tokens
        self.inputs += job.waiting_inputs

    def discard(self, future: "Future[Result]") -> None:
        """Drops the job with this future, if it is waiting."""
        if job := self._by_age.pop(future, None):
            del self._by_length[bisect_left(self._by_length, _rank(job))]
            self.tokens -= job.waiting_tokens
            self.inputs -= job.waiting_inputs

    def take_batch(self, budget: int) -> JobBatch:
        """Takes the encodings for a batch of at most `budget` tokens; a longer encoding is a batch of its own.

        If the oldest job gets nothing because its next encoding does not fit, that job comes first in the next batch.
        """
        batch: JobBatch = []
        if self._by_age:
            oldest = self._oldest()
            before, size = oldest.taken, self._size(budget)
            tokens = self._take(oldest, batch, 0) if self._oldest_first else 0
            tokens += self._fill(batch, self._shortest, min(size // 2, budget - tokens))
            self._fill(batch, self._oldest, size - tokens)
            self._oldest_first = oldest.taken == before
        return batch

    def _size(self, budget: int) -> int:
        """The number of tokens for the next batch.

        Twice the tokens of the shortest jobs that half the budget holds, but at least `_EFFICIENT_SHARE` of the budget.
        If no job fits into half the budget, the whole budget.
        """
        short, half = 0, budget // 2
        for _, _, job in self._by_length:
            if short >= half or job.tokens > half:
                break
            short += job.tokens
        return min(budget, max(int(budget * _EFFICIENT_SHARE), 2 * short)) if short else budget

    def _oldest(self) -> Job:
        return next(iter(self._by_age.values()))

    def _shortest(self) -> Job:
        return self._by_length[0][2]

    def _fill(self, batch: JobBatch, first: Callable[[], Job], room: int) -> int:
        """Takes encodings of the job that `first` returns, job after job, until an encoding does not fit.

        Returns:
            The number of tokens taken.
        """
        tokens = 0
        while self._by_age:
            job = first()
            tokens += self._take(job, batch, room - tokens)
            if job.waiting_inputs:
                break
        return tokens

    def _take(self, job: Job, batch: JobBatch, room: int) -> int:
        """Takes a job's next encodings while they fit. The first encoding of a batch always fits.

        Returns:
            The number of tokens taken.
        """
        tokens = taken = 0
        while job.waiting_inputs and (not batch or tokens + job.next_tokens <= room):
            tokens += job.next_tokens
            taken += 1
            batch.append(job.take())
        self.tokens -= tokens
        self.inputs -= taken
        if not job.waiting_inputs:
            self.discard(job.future)
        return tokens


def _rank(job: Job) -> tuple[int, int, Job]:
    """The sort key of a waiting job in `_by_length`."""
    return job.tokens.bit_length(), job.arrival, job
