"""One client's connection: uvicorn's HTTP/1.1, with limits on connections, headers and idle time.

uvicorn accepts connections until the process runs out of file descriptors, keeps headers without limit, and waits
forever for a request's headers and for the client to read a response. Here, each of these is limited:

- a connection beyond `max_connections` is rejected before its request is read;
- path and headers have at most `max_header_bytes`;
- the headers of a request must be complete within `idle_timeout`, however slowly their bytes arrive;
- once a response is complete in memory, the client must read it within `request_timeout`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from l2v.app.engine.errors import OverloadedError, ServiceError
from l2v.app.engine.usage import Amount
from l2v.app.http.errors import HeadersTooLargeError, MalformedError
from l2v.app.http.surfaces import Targets
from l2v.app.settings import Settings

# Bytes to add for each header, as HTTP/2 does, so that many tiny headers reach the limit too.
_HEADER_OVERHEAD = 32


class Connection(HttpToolsProtocol):
    """Enforces the limits of one connection. Errors have the same form as those of the API.

    Args:
        settings: the limits.
        targets: the paths, each with the API that decides the form of its errors.
        open_connections: the number of open connections.
        on_rejected: a function to call if this connection exceeds `max_connections`.
        uvicorn: the arguments of uvicorn's own class.
    """

    def __init__(
        self,
        settings: Settings,
        targets: Targets,
        open_connections: Amount,
        on_rejected: Callable[[], None],
        **uvicorn: Any,
    ) -> None:
        super().__init__(**uvicorn)
        self._settings = settings
        self._targets = targets
        self._open_connections = open_connections
        self._on_rejected = on_rejected
        self._head_timer: asyncio.TimerHandle | None = None
        self._response_timer: asyncio.TimerHandle | None = None
        # Whether the current response is complete in memory. uvicorn's `cycle` may already belong to the next request.
        self._response_complete = False
        # The size of the parsed path and headers, and the bytes received since the parser last reported progress.
        self._head_bytes = self._unparsed_bytes = 0
        self._parsing_upgrade = False
        self.url = b""

    @property
    def unsent(self) -> bool:
        """Whether a part of a response is still waiting to be sent."""
        return self.transport.get_write_buffer_size() > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open_connections.add(1)
        if self._open_connections.total > (limit := self._settings.max_connections):
            self._on_rejected()
            self._reject(OverloadedError(f"more than {limit} connections are open (max_connections)"))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head_timer)
        _cancel(self._response_timer)
        super().connection_lost(exc)
        self._open_connections.add(-1)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        received, self._unparsed_bytes = self._unparsed_bytes + len(data), -1
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._reject_head()
            return
        # The parser reports only complete headers. Only a byte count reveals a header that never ends.
        self._unparsed_bytes = received if self._unparsed_bytes < 0 else 0
        if self._unparsed_bytes > self._settings.max_header_bytes and not self.transport.is_closing():
            self._head_bytes = self._unparsed_bytes
            self._reject_head()

    def _parse(self, data: bytes) -> None:
        """Parses received bytes. Ignores offers of protocol upgrades (RFC 9110, section 7.8).

        Java's client makes such offers. After an offer, the parser would treat the body as data of the offered
        protocol, and then as a new request. So the request is parsed again without the offer.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if not self._parsing_upgrade:
                    return  # the method is CONNECT
                data = self._head_without_upgrade() + data[offer.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                lines.append(b"connection: close")
            elif name not in (b"connection", b"upgrade", b"http2-settings"):
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._unparsed_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + _HEADER_OVERHEAD)

    def on_headers_complete(self) -> None:
        self._parsing_upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._parsing_upgrade:
            _cancel(self._head_timer)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._parsing_upgrade:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._response_complete = True
        super().on_response_complete()
        self._end_response()
        if self.cycle.response_complete:  # else the next request has arrived already
            self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._response_complete = False
        if self._response_timer is None:
            self._response_timer = self.loop.call_later(self._settings.request_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_response()

    def _end_response(self) -> None:
        if self._response_complete and not self.flow.write_paused:
            _cancel(self._response_timer)
            self._response_timer = None

    def _await_head(self) -> None:
        _cancel(self._head_timer)
        self._head_timer = self.loop.call_later(self._settings.idle_timeout, self._close_idle)

    def _close_idle(self) -> None:
        if self.flow.write_paused:
            self._await_head()  # the client is reading a response, which has its own time limit
        elif self.unsent:
            self.transport.abort()
        else:
            self.transport.close()

    def _count(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._settings.max_header_bytes:
            raise ValueError  # the parser stops with an error

    def _reject_head(self) -> None:
        if self._head_bytes > (limit := self._settings.max_header_bytes):
            message = f"the headers are larger than {limit} bytes (max_header_bytes)"
            self._reject(HeadersTooLargeError(message, "headers"))
        else:
            self._reject(MalformedError("the request is not valid HTTP/1.1", "request"))

    def _reject(self, error: ServiceError) -> None:
        """Sends an error without passing a request to the application, and closes the connection."""
        surface = self._targets.find(self.url.partition(b"?")[0].decode("latin-1")).surface
        response = surface.to_response(error, Connection="close")
        lines = [b"%s: %s\r\n" % header for header in [*self.server_state.default_headers, *response.raw_headers]]
        self.transport.write(b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", response.body]))
        self.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
