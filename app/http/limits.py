"""Enforces limits before bodies are parsed: key, media type, size, structure, time and memory. Pure ASGI."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2v.app.engine.errors import OverloadedError, ServiceError, TooLargeError
from l2v.app.engine.usage import Amount
from l2v.app.http.auth import Auth
from l2v.app.http.bodies import SLICE, Structure
from l2v.app.http.errors import DeadlineError, MediaTypeError
from l2v.app.http.surfaces import Surface
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings

Admit = Callable[[], AbstractContextManager[None]]

# The rest of a rejected body is read for at most this time, and up to this size.
_DISCARD_SECONDS, _DISCARD_BYTES = 10.0, 64 << 20


class RequestLimits:
    """Enforces the limits, reads the body, and cancels the work of clients that disconnect.

    - A deadline runs from the request's headers to the start of its response.
    - A POST request holds a permit from the arrival of its body to the start of its response. So clients that are slow
      to send or to read hold no permit, and excess requests are rejected before they are parsed.
    - The memory of the bodies of all POST requests and their responses together is limited. A request's body counts
      from its first byte, a response's body even before it is computed. Both bodies count until the response is sent.
      The bodies of other requests are dropped as they arrive.

    Args:
        app: the application to protect.
        auth: checks keys.
        settings: the limits.
        admit: returns a permit, or raises `ServiceError`.
        bodies: the number of bytes of all bodies in memory.
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
        scope["state"]["reserve"] = gate.reserve_response
        error: ServiceError | None = None
        try:
            self._auth.check(target, headers)
            if post:
                _check_media_type(headers)
            async with deadline:
                messages = await self._read(headers, receive, gate, keep=post)
                if not messages:
                    return
                if post:
                    gate.permit.enter_context(self._admit())
                await _run_while_connected(self._app, scope, messages, receive, gate)
            error = gate.rejection
        except ServiceError as rejection:
            error = rejection.with_traceback(None)  # without the traceback, whose frames hold the body
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

    async def _read(self, headers: Headers, receive: Receive, gate: "_ResponseGate", *, keep: bool) -> list[Message]:
        """Reads the body, and drops it unless `keep` is true.

        Returns:
            A list of one message with the body, or an empty list if the client disconnects.
        """
        announced = headers.get("content-length", "")
        size, arrived, body = int(announced) if announced.isdecimal() else 0, 0, bytearray()
        structure = Structure(self._settings.max_inputs)
        while True:
            if size > (limit := self._settings.max_body_bytes):
                raise TooLargeError(f"the body is larger than {limit} bytes (max_body_bytes)", "body")
            gate.reserve(len(body) - gate.bytes_held)
            if gate.body_complete:
                return [{"type": "http.request", "body": bytes(body), "more_body": False}]
            message = await receive()
            if message["type"] == "http.disconnect":
                return []
            gate.body_complete = not message.get("more_body", False)
            received = message.get("body", b"")
            size = arrived = arrived + len(received)
            if not keep:
                continue
            for start in range(0, len(received), SLICE):
                if start:
                    await asyncio.sleep(0)
                structure.feed(received[start : start + SLICE])
            body += received

    def _reserve(self, bytes_held: int, size: int) -> None:
        """Reserves memory for a body, or releases memory.

        Args:
            bytes_held: the number of bytes that the request has reserved already.
            size: the number of bytes to reserve in addition; a negative number releases bytes.

        Raises:
            TooLargeError: the request alone would exceed `max_total_body_bytes`.
            OverloadedError: all requests together would exceed `max_total_body_bytes` now.
        """
        limit = self._settings.max_total_body_bytes
        if size > 0 and bytes_held + size > limit:
            raise TooLargeError(
                f"the response may take {size} bytes; the limit for all bodies is {limit} (max_total_body_bytes): "
                "ask for less at once, or for base64"
            )
        if size > 0 and self._bodies.total + size > limit:
            self._metrics.rejected.labels("bodies").inc()
            raise OverloadedError(
                f"with this body, all bodies together would exceed {limit} bytes (max_total_body_bytes)"
            )
        self._bodies.add(size)


class _ResponseGate:
    """Passes the response on. When the response starts, returns the permit and ends the deadline.

    After that, `Connection` limits how long the client takes to read.

    Attributes:
        permit: the request's permit, until the response starts.
        bytes_held: the memory reserved for the request's and response's bodies, until the response is sent.
        rejection: the error to send instead of the response, if there is one.
        body_complete: whether the request's body has arrived.
        started: whether the response has started.
    """

    def __init__(self, send: Send, deadline: asyncio.Timeout, reserve: Callable[[int, int], None]) -> None:
        self._send = send
        self._deadline = deadline
        self._reserve = reserve
        self.permit = ExitStack()
        self.bytes_held = self._response_bytes = 0
        self.rejection: ServiceError | None = None
        self.body_complete = self.started = False

    def reserve(self, size: int) -> None:
        """Reserves memory for a body. Raises `OverloadedError` or `TooLargeError` if there is not enough."""
        self._reserve(self.bytes_held, size)
        self.bytes_held += size

    def reserve_response(self, size: int) -> None:
        """Reserves memory for a part of the response before that part is computed. Raises the errors of `reserve`."""
        self.reserve(size)
        self._response_bytes += size

    def release(self) -> None:
        """Releases all reserved memory."""
        self.reserve(-self.bytes_held)

    async def __call__(self, message: Message) -> None:
        if not self.started:
            # If the deadline has just passed, the client gets a `DeadlineError` instead.
            if self.rejection or self._deadline.expired():
                return
            try:
                # The response's size is known now: adjust the reservation to it.
                self.reserve(int(Headers(raw=message["headers"]).get("content-length", "0")) - self._response_bytes)
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

        Many clients read the response only after sending the whole body. If the connection were closed earlier, these
        clients would see a reset instead. So this method reads and discards the rest of the body, within limits.
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
    """Raises `MediaTypeError` unless the body is uncompressed JSON. So no small body can unpack to a huge one."""
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    for name, plain in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
        if headers.get(name, plain).strip().lower() != plain:
            raise MediaTypeError(f"send the body uncompressed: {name} must be {plain}", name)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise MediaTypeError("send the body with Content-Type: application/json", "content-type")


async def _run_while_connected(
    app: ASGIApp, scope: Scope, messages: list[Message], receive: Receive, send: Send
) -> None:
    """Runs the application on the messages. If the client disconnects, cancels the application and its jobs."""
    task, running, left = asyncio.current_task(), True, False
    assert task is not None

    async def replay() -> Message:
        # Remove the message from the list, so that the memory of the body is freed after parsing.
        return messages.pop() if messages else await asyncio.shield(disconnect)

    def leave(_: object) -> None:
        nonlocal left
        if running:
            left = task.cancel()

    disconnect = asyncio.ensure_future(receive())
    disconnect.add_done_callback(leave)
    try:
        await app(scope, replay, send)
    except asyncio.CancelledError:
        if not left or task.uncancel():
            raise
    finally:
        running = False
        disconnect.cancel()
