"""The interfaces to the engine and to the loader of adapters.

Each has an implementation for an engine in this process, and one for an engine in another process (`EngineClient`).
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Protocol

from l2v.app.engine.jobs import Result
from l2v.models.types import Encoding


class Engine(Protocol):
    """Runs the jobs of requests. `Scheduler` implements and documents this interface."""

    @property
    def ready(self) -> bool:
        """Whether the engine accepts jobs. With several front ends, all of them must be open."""

    @property
    def failure(self) -> str | None: ...

    @property
    def queue_tokens(self) -> int: ...

    @property
    def tokens_per_second(self) -> float: ...

    def submit(self, encodings: Sequence[Encoding]) -> "Future[Result] | asyncio.Future[Result]": ...

    def reserve(self, tokens: int) -> AbstractContextManager[None]: ...

    def check_capacity(self) -> None: ...

    def fail_all(self, failure: str) -> None: ...

    def close(self, timeout: float) -> None: ...


class Adapters(Protocol):
    """Loads and unloads adapters while the service runs. `RuntimeAdapters` implements and documents this interface."""

    async def load(self, name: str, path: str) -> None: ...

    async def unload(self, name: str) -> None: ...
