"""HTTP/1.1 as uvicorn parses it, with a bound on what stands before the body, and refusals in our own shape."""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from l2v.app.http.errors import HeadersTooLargeError, MalformedError, ServiceError, answer

# What a header counts beside its own bytes, as in HTTP/2: very many tiny ones are large too.
_OVERHEAD = 32


class Protocol(HttpToolsProtocol):
    """One connection. uvicorn itself would keep headers without end, and answers what is no HTTP in plain text.

    Args:
        max_header_bytes: of a request's target and headers together.
    """

    def __init__(self, *args: Any, max_header_bytes: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._max_header_bytes = max_header_bytes
        self._told = False
        self._counted = self._unfinished = 0
        self._offered = False
        self.url = b""
        self.parser: Any = _Parser(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._told = True
        self._counted = self._unfinished = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._told = True
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._told = True
        self._count(len(name) + len(value) + _OVERHEAD)

    def on_headers_complete(self) -> None:
        self._told = True
        # An offer of another protocol, as Java's client makes of HTTP/2, may be passed over (RFC 9110, section 7.8).
        self._offered = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if not self._offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._offered:
            super().on_message_complete()

    def plain(self) -> bytes:
        """The request's head once more, without its offer of another protocol."""
        self._offered = False
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name == b"connection" and b"close" in value.lower():
                head += [b"connection: close\r\n"]
            elif name not in (b"connection", b"upgrade", b"http2-settings"):
                head += [name, b": ", value, b"\r\n"]
        return b"".join([*head, b"\r\n"])

    def on_body(self, body: bytes) -> None:
        self._told = True
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        self._told = False
        super().data_received(data)
        # The parser tells of a header or a trailer at its end; one that never ends is known only by what has come in.
        if self._told:
            self._unfinished = 0
        elif not self.transport.is_closing():
            self._unfinished += len(data)
            if self._unfinished > self._max_header_bytes:
                self._counted = self._unfinished
                self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """uvicorn's refusal of what it cannot parse: here with the row of the table that it belongs to."""
        error: ServiceError = MalformedError("the request is not valid HTTP/1.1", "request")
        if self._counted > self._max_header_bytes:
            error = HeadersTooLargeError(
                f"the headers are larger than {self._max_header_bytes} bytes (max_header_bytes)", "headers"
            )
        self.refuse(error)

    def refuse(self, error: ServiceError) -> None:
        """Answers with an error before there is a request, and closes the connection."""
        error.headers["Connection"] = "close"
        response = answer(error, self.url.partition(b"?")[0].decode("latin-1"))
        headers = [*self.server_state.default_headers, *response.raw_headers]
        lines = [name + b": " + value + b"\r\n" for name, value in headers]
        self.transport.write(b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", response.body]))
        self.transport.close()

    def _count(self, size: int) -> None:
        self._counted += size
        if self._counted > self._max_header_bytes:
            raise ValueError  # ends the parsing; `send_400_response` says why


class _Parser:
    """httptools' parser; what stands behind an offer of another protocol is read as HTTP all the same.

    That parser would take a body there for the first bytes of the other protocol, and then for a request.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._renew()

    def _renew(self) -> None:
        self._inner = httptools.HttpRequestParser(self._protocol)
        # As uvicorn has it: what stands behind the last request of a connection is nobody's.
        self._inner.set_dangerous_leniencies(lenient_data_after_close=True)

    def feed_data(self, data: bytes) -> None:
        while True:
            try:
                self._inner.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                if self._inner.get_method() == b"CONNECT":
                    raise
                data = data[offer.args[0] :]
                head = self._protocol.plain()
                self._renew()
                self._inner.feed_data(head)
            else:
                return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
