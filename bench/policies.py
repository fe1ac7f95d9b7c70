"""Scheduling policies to compare with `JobQueue`, and servers that use them.

`python -m bench.policies` serves the built-in model on one port for each policy, prints their addresses, and ends with
its standard input.
"""

import json
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack

from l2v.app.engine import scheduler
from l2v.app.engine.jobs import Job, JobBatch, Result
from l2v.app.engine.queue import JobQueue
from l2v.models import load
from tests.serving import LocalServer

# The token budget of a forward pass, a CPU's.
BUDGET = 4096
_EFFICIENT_SHARE = 0.25


class Deques:
    """Jobs in first-come-first-served queues, shortest jobs first.

    Attributes:
        bounds: the longest job of each queue but the last, as a share of the budget.
    """

    bounds: tuple[float, ...] = ()

    def __init__(self) -> None:
        self._deques: list[deque[Job]] = [deque() for _ in range(len(self.bounds) + 1)]

    def __iter__(self) -> Iterator[Job]:
        return (job for jobs in self._deques for job in jobs)

    @property
    def tokens(self) -> int:
        return sum(job.waiting_tokens for job in self)

    @property
    def inputs(self) -> int:
        return sum(job.waiting_inputs for job in self)

    def add(self, job: Job) -> None:
        self._deques[sum(job.tokens > bound * BUDGET for bound in self.bounds)].append(job)

    def discard(self, future: "Future[Result]") -> None:
        for jobs in self._deques:
            for job in [job for job in jobs if job.future is future]:
                jobs.remove(job)

    def _fill(self, jobs: deque[Job], batch: JobBatch, room: int) -> int:
        """Takes encodings in order while they fit; the first of a batch always does. Returns their tokens."""
        tokens = 0
        while jobs and (not batch or tokens + jobs[0].next_tokens <= room):
            tokens += jobs[0].next_tokens
            batch.append(jobs[0].take())
            if not jobs[0].waiting_inputs:
                jobs.popleft()
        return tokens


class FirstComeFirstServed(Deques):
    def take_batch(self, budget: int) -> JobBatch:
        batch: JobBatch = []
        self._fill(self._deques[0], batch, budget)
        return batch


class TwoClasses(Deques):
    """Short jobs, of up to a quarter of the budget, have half of each batch, and long ones the other half."""

    bounds = (0.25,)

    def take_batch(self, budget: int) -> JobBatch:
        batch: JobBatch = []
        short, long = self._deques
        tokens = self._fill(short, batch, budget // 2 if long else budget)
        size = max(int(budget * _EFFICIENT_SHARE), 2 * tokens) if tokens else budget
        self._fill(long, batch, size - tokens)
        return batch


class RoundRobin(Deques):
    """Each job gives one encoding in turn. Once the batch completes a job, the others fill it to a quarter only."""

    def take_batch(self, budget: int) -> JobBatch:
        (jobs,) = self._deques
        batch: JobBatch = []
        deferred: list[Job] = []
        remaining, completes_job = budget, False
        while jobs and (not batch or jobs[0].next_tokens <= remaining):
            job = jobs.popleft()
            if completes_job and budget - remaining >= budget * _EFFICIENT_SHARE and job.waiting_tokens > remaining:
                deferred.append(job)
                continue
            remaining -= job.next_tokens
            batch.append(job.take())
            if job.waiting_inputs:
                jobs.append(job)
            else:
                completes_job = True
        jobs.extendleft(reversed(deferred))
        return batch


POLICIES = {
    "round robin": RoundRobin,
    "first come, first served": FirstComeFirstServed,
    "the same in two classes": TwoClasses,
    "shortest and oldest": JobQueue,
}


def main() -> None:
    encoder, addresses = load("demo"), {}
    with ExitStack() as stack:
        for name, policy in POLICIES.items():
            scheduler.JobQueue = policy  # type: ignore[assignment, misc]
            addresses[name] = stack.enter_context(LocalServer(encoder, max_batch_tokens=BUDGET)).url
        print(json.dumps(addresses), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
