"""What a request must pass before anything of it is parsed: key, media type, size. Pure ASGI."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2v.app.http.auth import Keys
from l2v.app.http.errors import DeadlineError, MediaTypeError, OverloadedError, ServiceError, TooLargeError, answer
from l2v.app.http.telemetry import Metrics

# How long, and how much, of the rest of a refused body is still taken.
_REST_SECONDS, _REST_BYTES = 10.0, 64 << 20


class Guard:
    """Checks key, media type and size, reads the body whole, and cancels the work of a client that went away.

    Holds a request to its deadline, from its head to the beginning of its answer. What is posted needs a permit from
    when its body is there: a client that is slow to send it, or to read the answer, holds none meanwhile, and what is
    too much is refused before it is parsed. What all bodies take together is bounded from their first byte, and what
    their answers take, until they are sent.

    Args:
        app: what comes behind.
        keys: any of which opens the API; none: open.
        max_body_bytes: the largest body.
        max_total_body_bytes: of the bodies of all requests and answers together, until each is answered.
        timeout: seconds of the deadline.
        admit: gives a permit, or raises `ServiceError`.
        metrics: where refusals are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        max_body_bytes: int,
        max_total_body_bytes: int,
        timeout: float,
        admit: Callable[[], AbstractContextManager[None]],
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._max_total_body_bytes = max_total_body_bytes
        self._total_body_bytes = 0
        self._timeout = timeout
        self._admit = admit
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.timeout(self._timeout)
        # Operators are answered even when there is no room.
        exchange = _Exchange(send, deadline, self._take if scope["method"] == "POST" else None)
        exchange.room.callback(self._forget, exchange)
        refusal: ServiceError | None = None
        try:
            headers = Headers(scope=scope)
            self._keys.check(scope["path"], headers)
            if scope["method"] == "POST":
                _check_media_type(headers)
            async with deadline:
                body = await self._read(headers, receive, exchange)
                if body is None:
                    return
                if scope["method"] == "POST":
                    exchange.permit.enter_context(self._admit())
                await _serve_while_connected(self._app, scope, body, receive, exchange)
            refusal = exchange.refusal
        except ServiceError as error:
            refusal = error.with_traceback(None)  # whose frames hold the body
        except TimeoutError:
            if not deadline.expired():
                raise
            refusal = self._too_late(exchange)
        finally:
            exchange.permit.close()
            exchange.room.close()
        if refusal and not exchange.begun:
            await exchange.refuse(refusal, scope["path"], receive)

    def _too_late(self, exchange: "_Exchange") -> DeadlineError:
        if not exchange.read:
            return DeadlineError(f"the body took more than {self._timeout:g} s to arrive (request_timeout)", "body")
        return DeadlineError(f"the request took more than {self._timeout:g} s (request_timeout)")

    async def _read(self, headers: Headers, receive: Receive, exchange: "_Exchange") -> bytes | None:
        """The whole body; None if the client left before its end."""
        announced = headers.get("content-length", "")
        if announced.isdecimal():
            self._check_size(int(announced))
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            exchange.read = not message.get("more_body", False)
            self._check_size(len(body) + len(chunk))
            if chunk:
                self._take(exchange, len(chunk))
            body += chunk
            if exchange.read:
                return bytes(body)

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise TooLargeError(f"the body is larger than {self._max_body_bytes} bytes (max_body_bytes)", "body")

    def _take(self, exchange: "_Exchange", size: int) -> None:
        """Keeps room for some of a body or an answer; one alone may have any size."""
        others = self._total_body_bytes - exchange.body_bytes
        if others and self._total_body_bytes + size > self._max_total_body_bytes:
            self._metrics.rejected.labels("bodies").inc()
            raise OverloadedError(
                f"the bodies of all requests and answers would be larger than {self._max_total_body_bytes} bytes "
                "(max_total_body_bytes)"
            )
        self._total_body_bytes += size
        exchange.body_bytes += size

    def _forget(self, exchange: "_Exchange") -> None:
        self._total_body_bytes -= exchange.body_bytes


class _Exchange:
    """One request and its answer, whose beginning gives the permit back and ends the deadline.

    From there on, how long the client takes is the connection's concern.

    Attributes:
        permit: what the request holds of the service, until its answer begins.
        room: what its body and its answer take, until that ends.
        body_bytes: that many.
        refusal: why the answer is not sent, if it is not.
        read: whether the body has been, to its end.
        begun: whether the answer has.
    """

    def __init__(self, send: Send, deadline: asyncio.Timeout, take: Callable[["_Exchange", int], None] | None) -> None:
        self._send = send
        self._deadline = deadline
        self._take = take
        self.refusal: ServiceError | None = None
        self.permit = ExitStack()
        self.room = ExitStack()
        self.body_bytes = 0
        self.read = False
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if not self.begun:
            if self._deadline.expired():
                return  # too late by a moment: the client is being told so
            if not self._has_room(message):
                return
            self.begun = True
            self.permit.close()
            self._deadline.reschedule(None)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.room.close()  # before the client can send its next request
        await self._send(message)

    def _has_room(self, message: Message) -> bool:
        """Whether the answer may be sent: it is held until the client has taken it."""
        if self._take and self.refusal is None and message["type"] == "http.response.start":
            try:
                self._take(self, int(Headers(raw=message["headers"]).get("content-length", "0")))
            except ServiceError as error:
                self.refusal = error.with_traceback(None)
        return self.refusal is None

    async def refuse(self, error: ServiceError, path: str, receive: Receive) -> None:
        """Tells the client of an error.

        Many clients look for an answer only when they have sent all, and would find the connection reset if it were
        closed before. So what is left of the body is taken, for a while, and thrown away.
        """
        if not self.read:
            error.headers["Connection"] = "close"
        response = answer(error, path)
        headers = response.raw_headers
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body, "more_body": not self.read})
        if not self.read:
            with suppress(TimeoutError):
                async with asyncio.timeout(_REST_SECONDS):
                    await _discard(receive)
            await self._send({"type": "http.response.body"})


async def _discard(receive: Receive) -> None:
    taken = 0
    while taken < _REST_BYTES:
        message = await receive()
        taken += len(message.get("body", b""))
        if not message.get("more_body", False):
            return


def _check_media_type(headers: Headers) -> None:
    """A body must be plain JSON: nothing is decompressed, so that no body grows behind the limit of its size."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    for name, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        if headers.get(name, plain).strip().lower() != plain:
            raise MediaTypeError(f"send the body as it is, not compressed: {name} must be {plain}", name)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeError("send the body with Content-Type: application/json", "content-type")


async def _serve_while_connected(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Runs the application on a body already read; a disconnect cancels it, and with it its place in the queue."""

    async def replay() -> Message:
        nonlocal body
        message, body = {"type": "http.request", "body": body, "more_body": False}, b""
        return message

    work = asyncio.ensure_future(app(scope, replay, send))
    gone = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)
