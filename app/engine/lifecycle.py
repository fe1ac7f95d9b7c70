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

# Seconds between two checks whether the engine is down.
_POLL_SECONDS = 0.25
# Seconds that `close` waits for the engine thread to end. By then, all requests have finished.
_JOIN_SECONDS = 1.0


class State(StrEnum):
    """The state of the service; only `READY` accepts requests."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DOWN = "down"


class Lifecycle:
    """Accepts requests while the engine is up and the service is not draining.

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
        """Waits until the engine is down. Then fails all its jobs, and returns the reason why it is down."""
        while True:
            if self.engine is not None and (failure := self.engine.failure) is not None:
                self.engine.fail_all(failure)
                return failure
            await asyncio.sleep(_POLL_SECONDS)  # poll, since a hang triggers no event

    def close(self) -> None:
        """Rejects new requests and closes the engine. Call it only after all accepted requests have finished."""
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
