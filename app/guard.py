"""What a request must pass before anything of it is parsed: key, media type, size. Pure ASGI."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import DeadlineError, MediaTypeError, ServiceError, TooLargeError, answer
from app.keys import Keys


class Guard:
    """Checks key, media type and size, reads the body whole, and cancels the work of a client that went away."""

    def __init__(self, app: ASGIApp, keys: Keys, max_body_bytes: int, timeout: float) -> None:
        self._app = app
        self._keys = keys
        self._max_body_bytes = max_body_bytes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            headers = Headers(scope=scope)
            self._keys.check(scope["path"], headers)
            if scope["method"] == "POST":
                _check_media_type(headers)
            async with asyncio.timeout(self._timeout):
                body = await self._read(headers, receive)
        except (ServiceError, TimeoutError) as caught:
            error = (
                caught
                if isinstance(caught, ServiceError)
                else DeadlineError(f"the body took more than {self._timeout:g} s to arrive (request_timeout)", "body")
            )
            # The rest of the body is not read, so the connection cannot serve another request.
            error.headers["Connection"] = "close"
            await answer(error, scope["path"])(scope, receive, send)
            return
        if body is not None:
            await _serve_while_connected(self._app, scope, body, receive, send)

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
