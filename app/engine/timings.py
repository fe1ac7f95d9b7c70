"""The time that one request spends in each stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timings(dict[str, float]):
    """Seconds per stage, in the order in which the stages first ended.

    Attributes:
        started: when each stage first started, in seconds since the epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times the block. If a stage runs twice, its times are added up."""
        clock, started = time.time(), time.perf_counter()
        try:
            yield
        finally:
            self.add(name, clock, time.perf_counter() - started)

    def add(self, name: str, started: float, seconds: float) -> None:
        """Records a stage that was timed elsewhere."""
        self.started.setdefault(name, started)
        self[name] = self.get(name, 0.0) + seconds
