"""What a request must pass before anything of it is parsed: key, media type, size. Pure ASGI."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import DeadlineError, MediaTypeError, ServiceError, TooLargeError, answer
from app.keys import Keys


class Guard:
    """Checks key, media type and size, reads the body whole, and cancels the work of a client that went away.

    Holds a request to its deadline, from its head to the beginning of its answer. What is posted needs a permit from
    when its body is there: who is slow to send it, or to take the answer, holds none meanwhile, and what is too much
    is refused before it is parsed.

    Args:
        app: what comes behind.
        keys: any of which opens the API; none: open.
        max_body_bytes: the largest body.
        timeout: seconds of the deadline.
        admit: gives a permit, or raises `ServiceError`.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        max_body_bytes: int,
        timeout: float,
        admit: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._app = app
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._timeout = timeout
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body, deadline = None, asyncio.timeout(self._timeout)
        outgoing = _Outgoing(send, deadline)
        try:
            headers = Headers(scope=scope)
            self._keys.check(scope["path"], headers)
            if scope["method"] == "POST":
                _check_media_type(headers)
            async with deadline:
                body = await self._read(headers, receive)
                if body is None:
                    return
                if scope["method"] == "POST":
                    outgoing.permit.enter_context(self._admit())
                await _serve_while_connected(self._app, scope, body, receive, outgoing)
        except ServiceError as error:
            await outgoing.refuse(error, scope, receive, body is not None)
        except TimeoutError:
            if not deadline.expired():
                raise
            await outgoing.refuse(self._too_late(body), scope, receive, body is not None)
        finally:
            outgoing.permit.close()

    def _too_late(self, body: bytes | None) -> DeadlineError:
        if body is None:
            return DeadlineError(f"the body took more than {self._timeout:g} s to arrive (request_timeout)", "body")
        return DeadlineError(f"the request took more than {self._timeout:g} s (request_timeout)")

    async def _read(self, headers: Headers, receive: Receive) -> bytes | None:
        """The whole body; None if the client left before its end."""
        announced = headers.get("content-length", "")
        if announced.isdecimal():
            self._check_size(int(announced))
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            self._check_size(size)
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _check_size(self, size: int) -> None:
        if size > self._max_body_bytes:
            raise TooLargeError(f"the body is larger than {self._max_body_bytes} bytes (max_body_bytes)", "body")


class _Outgoing:
    """The answer on its way. Its beginning gives the permit back and ends the deadline.

    From there on, how long the client takes is the connection's concern.
    """

    def __init__(self, send: Send, deadline: asyncio.Timeout) -> None:
        self._send = send
        self._deadline = deadline
        self.permit = ExitStack()
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if not self.begun:
            if self._deadline.expired():
                return  # too late by a moment: the client is being told so
            self.begun = True
            self.permit.close()
            self._deadline.reschedule(None)
        await self._send(message)

    async def refuse(self, error: ServiceError, scope: Scope, receive: Receive, read: bool) -> None:
        """Tells the client of an error, unless its answer has begun; `read`: whether its body has been."""
        if not read:
            # The rest of the body is not read, so the connection cannot serve another request.
            error.headers["Connection"] = "close"
        if not self.begun:
            await answer(error, scope["path"])(scope, receive, self._send)


def _check_media_type(headers: Headers) -> None:
    """A body must be plain JSON: nothing is decompressed, so that no body grows behind the limit of its size."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    for name, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        if headers.get(name, plain).strip().lower() != plain:
            raise MediaTypeError(f"send the body as it is, not compressed: no {name} but {plain}", name)
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
