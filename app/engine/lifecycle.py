"""The life of the service: it loads, accepts requests up to a limit, drains, and may go down."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from l2v.app.engine.errors import OverloadedError, UnavailableError
from l2v.app.engine.protocol import Engine
from l2v.app.engine.served_models import LOADING_SECONDS
from l2v.app.engine.usage import Usage
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings

_WATCH_SECONDS = 0.25
# Seconds for the engine thread to exit once no request waits for it.
_JOIN_SECONDS = 1.0


class State(StrEnum):
    """The state of the service; only `READY` accepts requests."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


class Lifecycle:
    """Admits requests while the engine works and the service is not draining.

    Attributes:
        usage: how much of each limit is in use.
        engine: runs the jobs of requests; None until the encoder is loaded.
    """

    def __init__(self, settings: Settings, metrics: Metrics, usage: Usage) -> None:
        self.settings, self.metrics, self.usage = settings, metrics, usage
        self.engine: Engine | None = None
        self._draining = False
        metrics.engine_up.set_function(lambda: float(self.engine is not None and not self.engine.failure))

    @property
    def state(self) -> State:
        if self.engine and self.engine.failure:
            return State.DOWN
        if self._draining:
            return State.DRAINING
        return State.READY if self.engine and self.engine.ready else State.LOADING

    @property
    def in_flight(self) -> int:
        """The number of requests that this process is working on."""
        return self.usage.requests.own

    def drain(self) -> None:
        """Rejects new requests from now on; requests in flight run to completion."""
        self._draining = True

    async def wait_down(self) -> str:
        """Waits until the engine is down, fails all waiting jobs, and returns the reason."""
        while self.engine is None or (failure := self.engine.failure) is None:  # noqa: ASYNC110
            await asyncio.sleep(_WATCH_SECONDS)  # poll, since a hang triggers no event
        self.engine.fail_all(failure)
        return failure

    def close(self) -> None:
        """Stops the engine thread. Call this method once accepted requests have finished."""
        self.drain()
        if self.engine is not None:
            self.engine.close(_JOIN_SECONDS)

    def check_open(self) -> None:
        """Raises `UnavailableError` unless the service accepts requests."""
        match self.state:
            case State.LOADING:
                raise UnavailableError("the model is loading", retry_after=LOADING_SECONDS)
            case State.DRAINING:
                raise UnavailableError("the service is shutting down", permanent=True)
            case State.DOWN:
                raise UnavailableError("the engine is down", permanent=True)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Takes one of the `max_requests` permits, before any work is done for the request.

        Raises:
            OverloadedError: no permit or no queue capacity is left.
            UnavailableError: the service accepts no requests.
        """
        self.check_open()
        if self.engine is not None:
            self.engine.check_capacity()
        requests = self.usage.requests
        if (in_flight := requests.total) >= self.settings.max_requests:
            self.metrics.rejected.labels("requests").inc()
            raise OverloadedError(f"{in_flight} requests are in flight, which is the maximum (max_requests)")
        requests.add(1)
        try:
            yield
        finally:
            requests.add(-1)
