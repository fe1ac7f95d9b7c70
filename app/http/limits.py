"""Limits on requests: key, media type, size, time and memory, before anything is parsed. Pure ASGI."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2v.app.engine.errors import OverloadedError, ServiceError, TooLargeError
from l2v.app.engine.usage import Amount
from l2v.app.http.auth import Auth
from l2v.app.http.errors import DeadlineError, MediaTypeError
from l2v.app.http.messages import check_encoding
from l2v.app.http.surfaces import Surface
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings

Admit = Callable[[], AbstractContextManager[None]]

# How much of the rest of a rejected body is read, and for how long.
_DISCARD_SECONDS, _DISCARD_BYTES = 10.0, 64 << 20


class RequestLimits:
    """Enforces the limits, reads the body, and cancels the work of clients that disconnect.

    - A deadline runs from the request's headers to the start of its response.
    - A POST request takes a permit once its body has arrived, until its response starts. So clients that are slow to
      send or to read hold no permit, and excess requests are rejected before they are parsed.
    - The memory of all bodies is limited: of requests from their first byte, of responses until they are sent. GET
      requests are exempt.

    Args:
        app: the application to protect.
        auth: checks keys.
        settings: the limits.
        admit: returns a permit, or raises `ServiceError`.
        bodies: the bytes of all bodies in memory.
        metrics: counts rejections.
    """

    def __init__(
        self, app: ASGIApp, auth: Auth, settings: Settings, admit: Admit, bodies: Amount, metrics: Metrics
    ) -> None:
        self._app = app
        self._auth = auth
        self._settings = settings
        self._admit = admit
        self._metrics = metrics
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, post, target = Headers(scope=scope), scope["method"] == "POST", scope["state"]["target"]
        deadline = asyncio.timeout(self._settings.request_timeout)
        gate = _ResponseGate(send, deadline, self._reserve if post else lambda bytes_held, size: None)
        error: ServiceError | None = None
        try:
            self._auth.check(target, headers)
            if post:
                _check_media_type(headers)
            async with deadline:
                body = await self._read(headers, receive, gate)
                if body is None:
                    return
                if post:
                    check_encoding(body)
                    gate.permit.enter_context(self._admit())
                await _run_while_connected(self._app, scope, body, receive, gate)
            error = gate.rejection
        except ServiceError as rejection:
            error = rejection.with_traceback(None)  # its frames hold the body
        except TimeoutError:
            if not deadline.expired():
                raise
            what, param = ("the request", None) if gate.body_complete else ("the body", "body")
            error = DeadlineError(
                f"{what} took more than {self._settings.request_timeout:g} s (request_timeout)", param
            )
        finally:
            gate.permit.close()
            gate.release()
        if error and not gate.started:
            await gate.reject(error, target.surface, receive)

    async def _read(self, headers: Headers, receive: Receive, gate: "_ResponseGate") -> bytes | None:
        """Reads the body; returns None if the client disconnects."""
        announced = headers.get("content-length", "")
        size, body = int(announced) if announced.isdecimal() else 0, bytearray()
        while True:
            if size > (limit := self._settings.max_body_bytes):
                raise TooLargeError(f"the body is larger than {limit} bytes (max_body_bytes)", "body")
            gate.reserve(len(body) - gate.bytes_held)
            if gate.body_complete:
                return bytes(body)
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            gate.body_complete = not message.get("more_body", False)
            body += message.get("body", b"")
            size = len(body)

    def _reserve(self, bytes_held: int, size: int) -> None:
        """Reserves memory for a body, or releases it. A request may exceed the limit while it is the only one."""
        limit = self._settings.max_total_body_bytes
        if size > 0 and bytes_held < (reserved := self._bodies.total) and reserved + size > limit:
            self._metrics.rejected.labels("bodies").inc()
            raise OverloadedError(f"the bodies in memory would exceed {limit} bytes (max_total_body_bytes)")
        self._bodies.add(size)


class _ResponseGate:
    """Passes the response on. Its start returns the permit and ends the deadline.

    From then on, `Connection` limits how long the client takes to read.

    Attributes:
        permit: the request's permit, until its response starts.
        bytes_held: the memory reserved for its bodies, until its response is sent.
        rejection: why the response is withheld, if it is.
        body_complete: whether the request's body has arrived.
        started: whether the response has started.
    """

    def __init__(self, send: Send, deadline: asyncio.Timeout, reserve: Callable[[int, int], None]) -> None:
        self._send = send
        self._deadline = deadline
        self._reserve = reserve
        self.permit = ExitStack()
        self.bytes_held = 0
        self.rejection: ServiceError | None = None
        self.body_complete = self.started = False

    def reserve(self, size: int) -> None:
        """Reserves memory for a body; raises `OverloadedError`."""
        self._reserve(self.bytes_held, size)
        self.bytes_held += size

    def release(self) -> None:
        """Releases all reserved memory."""
        self.reserve(-self.bytes_held)

    async def __call__(self, message: Message) -> None:
        if not self.started:
            # If the deadline has just passed, the client gets that error instead.
            if self.rejection or self._deadline.expired():
                return
            try:
                self.reserve(int(Headers(raw=message["headers"]).get("content-length", "0")))
            except ServiceError as error:
                self.rejection = error.with_traceback(None)
                return
            self.started = True
            self.permit.close()
            self._deadline.reschedule(None)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.release()  # before the client can send its next request
        await self._send(message)

    async def reject(self, error: ServiceError, surface: Surface, receive: Receive) -> None:
        """Sends an error.

        Many clients read the response only after they have sent the whole body, and would see a reset connection if it
        were closed earlier. So the rest of the body is read for a while, and discarded.
        """
        response = surface.to_response(error, **({} if self.body_complete else {"Connection": "close"}))
        start = {"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": response.body, "more_body": not self.body_complete})
        if not self.body_complete:
            with suppress(TimeoutError):
                async with asyncio.timeout(_DISCARD_SECONDS):
                    discarded = 0
                    while discarded < _DISCARD_BYTES and (message := await receive()).get("more_body"):
                        discarded += len(message["body"])
            await self._send({"type": "http.response.body"})


def _check_media_type(headers: Headers) -> None:
    """Requires plain JSON. Nothing is decompressed, so no body grows past its limit."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    for name, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        if headers.get(name, plain).strip().lower() != plain:
            raise MediaTypeError(f"send the body uncompressed: {name} must be {plain}", name)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeError("send the body with Content-Type: application/json", "content-type")


async def _run_while_connected(app: ASGIApp, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
    """Runs the application on a body; a disconnect cancels it, and with it its jobs in the queue."""

    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    del body  # the application frees it once it is parsed

    async def replay() -> Message:
        return messages.pop() if messages else await asyncio.shield(disconnect)

    work = asyncio.ensure_future(app(scope, replay, send))
    disconnect = asyncio.ensure_future(receive())
    try:
        await asyncio.wait({work, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    finally:
        work.cancel()
        disconnect.cancel()
        await asyncio.gather(work, disconnect, return_exceptions=True)
