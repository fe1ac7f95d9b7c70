"""A simulated engine and its clients: a policy, the time of forward passes, and a clock that tests and tables share."""

import heapq
import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.mixes import Caller
from bench.policies import BUDGET
from l2v.app.engine.jobs import Job
from l2v.app.engine.queue import JobQueue
from l2v.models import Encoding

# From a response to the client's next request, in seconds.
_PAUSE = 0.003

Costs = Sequence[tuple[int, float]]


@dataclass
class Outcome:
    """What one mix came to.

    Attributes:
        latencies: in seconds, by kind of caller.
        batches: the tokens of each batch.
        busy: seconds of forward passes.
    """

    latencies: dict[str, list[float]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)
    busy: float = 0.0

    def figures(self) -> dict[str, float]:
        """Means and 99th percentiles of the latencies by kind, tokens per second of forward passes, and the fill."""
        found = {}
        for kind, seconds in sorted(self.latencies.items()):
            found |= {f"{kind} mean": float(np.mean(seconds)), f"{kind} p99": float(np.percentile(seconds, 99))}
        rate = sum(self.batches) / self.busy
        return found | {"tokens/s": rate, "fill": sum(self.batches) / len(self.batches) / BUDGET}


class Simulation:
    """Runs callers against a policy.

    Args:
        queue: the policy.
        costs: seconds of a forward pass by tokens, ascending; those between are interpolated.
    """

    def __init__(self, queue: JobQueue, costs: Costs) -> None:
        self._queue = queue
        self._costs = tuple(zip(*costs, strict=True))
        self._now = 0.0
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._done: dict[Job, Callable[[], None]] = {}
        self.outcome = Outcome()

    def run(self, callers: Sequence[Caller], seconds: float) -> Outcome:
        """Lets clients send requests for some seconds, and waits for the responses."""
        for caller in callers:
            requests = caller.requests()
            for number in range(int(caller.rate * seconds)):
                self._at(number / caller.rate, lambda c=caller, r=requests: self._send(c, r, 0.0))  # type: ignore[misc]
            for number in range(caller.clients):
                until = 0.0 if caller.once else seconds
                start = 1.0 if caller.once and len(callers) > 1 else number * 1e-4
                self._at(start, lambda c=caller, r=requests, u=until: self._send(c, r, u))  # type: ignore[misc]
        while self._events or self._queue.inputs:
            self._step()
        return self.outcome

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), event))

    def _send(self, caller: Caller, requests: Iterator[list[int]], until: float) -> None:
        job = Job([Encoding(array("q", [0]) * length, pooled=1) for length in next(requests)])
        sent = self._now

        def done() -> None:
            self.outcome.latencies.setdefault(caller.kind, []).append(self._now - sent)
            if self._now + _PAUSE < until:
                self._at(self._now + _PAUSE, lambda: self._send(caller, requests, until))

        self._done[job] = done
        self._queue.add(job)

    def _step(self) -> None:
        """Runs one batch, and the events until it ends."""
        batch = self._queue.take_batch(BUDGET)
        if not batch:
            self._advance(self._events[0][0])
            return
        tokens = sum(len(item.encoding) for item in batch)
        spent = float(np.interp(tokens, *self._costs))
        self.outcome.batches.append(tokens)
        self.outcome.busy += spent
        self._advance(self._now + spent)
        for job in dict.fromkeys(item.job for item in batch):
            if not job.waiting_inputs:
                self._done.pop(job)()

    def _advance(self, time: float) -> None:
        while self._events and self._events[0][0] <= time:
            self._now, _, event = heapq.heappop(self._events)
            event()
        self._now = time
