"""One client's connection: HTTP as `app/protocol.py` reads it, bounded in number and in idle time.

uvicorn takes connections until the process can open no more files, waits for ever for a request's head, and for the
client to take an answer. Here each has an end:

- beyond `max_connections` it is told so, without a look at what it wants;
- between requests, and before the first, a whole head must arrive within `idle_timeout`, however its bytes come;
- an answer that stands in memory must be taken within `answer_timeout`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from l2v.app.http.errors import OverloadedError
from l2v.app.http.protocol import Protocol


class Connection(Protocol):
    """Closes itself where the client does not do its part.

    Args:
        refused: called where this one is refused for their number.
        max_connections: of the server, this one among them.
        idle_timeout: seconds for a request's head.
        answer_timeout: seconds for an answer to be taken.
        uvicorn: what uvicorn gives its connections.
    """

    def __init__(
        self,
        refused: Callable[[], None],
        max_connections: int,
        idle_timeout: float,
        answer_timeout: float,
        **uvicorn: Any,
    ) -> None:
        super().__init__(**uvicorn)
        self._refused = refused
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._answer_timeout = answer_timeout
        self._head: asyncio.TimerHandle | None = None
        self._answer: asyncio.TimerHandle | None = None
        # Whether the answer that was begun stands in memory whole; uvicorn's cycle is of the last request that came.
        self._complete = False

    @property
    def unsent(self) -> bool:
        """Whether some of an answer has not gone out yet."""
        return self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            self._refused()
            self.refuse(OverloadedError(f"{self._max_connections} connections are open (max_connections)"))
        else:
            self._expect_head()

    def on_headers_complete(self) -> None:
        _cancel(self._head)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._complete = True
        super().on_response_complete()
        self._answer_taken()
        if self.cycle.response_complete:  # else the next request stands here already
            self._expect_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._complete = False
        if self._answer is None:
            self._answer = self.loop.call_later(self._answer_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer_taken()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head)
        _cancel(self._answer)
        super().connection_lost(exc)

    def _answer_taken(self) -> None:
        if self._complete and not self.flow.write_paused:
            _cancel(self._answer)
            self._answer = None

    def _expect_head(self) -> None:
        _cancel(self._head)
        self._head = self.loop.call_later(self._idle_timeout, self._end)

    def _end(self) -> None:
        if self.flow.write_paused:
            self._expect_head()  # an answer is being taken, which has a limit of its own
        elif self.unsent:
            self.transport.abort()
        else:
            self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
