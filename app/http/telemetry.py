"""Request ids, metrics, Server-Timing and log lines."""

import asyncio
import itertools
import logging
import re
import secrets
import time
from collections.abc import Callable
from functools import cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2v.app.engine.errors import InternalError, ServiceError, UnavailableError
from l2v.app.engine.timings import Timings
from l2v.app.http.surfaces import Access, Target, Targets
from l2v.app.logs import outline
from l2v.app.metrics import Metrics

logger = logging.getLogger("l2v.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_CLOSED = 499
# The halves of new request ids: the first half is unique to this process, the second to a request in this process.
_PROCESS, _NUMBERS = secrets.token_hex(8), itertools.count()


class Telemetry:
    """Finds the path's target, times and logs the request, and answers 500 for uncaught errors.

    Pure ASGI. Only CORS and tracing run outside this layer. Logs never contain a text, a key, or the message of an
    unexpected error, which may quote either.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, targets: Targets, trace: Callable[[Timings], None] | None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._targets = targets
        self._trace = trace
        # Cache the series, since finding a series by its labels takes longer than counting. There are few combinations
        # of labels.
        self._requests = cache(metrics.requests.labels)
        self._request_seconds = cache(metrics.request_seconds.labels)
        self._stage_seconds = cache(metrics.stage_seconds.labels)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # Behind a proxy that adds a prefix, such as Ray's, the path starts with `root_path`.
        prefix = root if scope["path"].startswith(root := scope.get("root_path", "")) else ""
        path, model, target = self._targets.resolve(scope["path"].removeprefix(prefix))
        scope["path"], timings = prefix + path, Timings()
        sender = _Sender(send, _request_id(Headers(scope=scope)), timings)
        # `model` is the label of the model that the request chooses; "" if the request chooses no model.
        state = scope.setdefault("state", {})
        state.update(timings=timings, target=target, path_model=model, model="")
        self._metrics.in_flight.inc()
        error: ServiceError | None = None
        try:
            await self._app(scope, receive, sender)
        except asyncio.CancelledError:
            # The server cancels the requests that outlast `drain_timeout`.
            error = UnavailableError("the service is shutting down")
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as bug:  # a panic in the tokenizers library does not derive from Exception
            logger.error("bug", extra={"request_id": sender.request_id, **outline(bug)})
            error = InternalError(f"the service has a bug; its log describes the error of request {sender.request_id}")
        finally:
            if error and sender.status == _CLIENT_CLOSED:
                await target.surface.to_response(error)(scope, receive, sender)
            self._metrics.in_flight.dec()
            self._record(target, state["model"], sender, timings, (sender.ended or time.perf_counter()) - started)

    def _record(self, target: Target, model: str, sender: "_Sender", timings: Timings, seconds: float) -> None:
        self._requests(target.route, str(sender.status), model).inc()
        self._request_seconds(target.route).observe(seconds)
        if self._trace:
            self._trace(timings)
        for stage, stage_seconds in timings.items():
            self._stage_seconds(stage).observe(stage_seconds)
        level = logging.DEBUG if target.access in (Access.PROBE, Access.METRICS) else logging.INFO
        fields = {"request_id": sender.request_id, "route": target.route, "status": sender.status, "model": model}
        stages = {f"{stage}_ms": round(1000 * value, 2) for stage, value in timings.items()}
        logger.log(level, "request", extra={**fields, "ms": round(1000 * seconds, 2), **stages})


class _Sender:
    """Sends the response, and adds the headers that all responses have in common.

    Attributes:
        request_id: the request's id.
        status: the status of the response; 499 if the client disconnects before the response starts.
        ended: when the last part of the body was sent; 0 before that.
    """

    def __init__(self, send: Send, request_id: str, timings: Timings) -> None:
        self._send = send
        self._timings = timings
        self.request_id = request_id
        self.status = _CLIENT_CLOSED
        self.ended = 0.0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [(b"x-request-id", self.request_id.encode()), (b"x-content-type-options", b"nosniff")]
            if self._timings:
                stages = (f"{name};dur={1000 * seconds:.2f}" for name, seconds in self._timings.items())
                headers.append((b"server-timing", ", ".join(stages).encode()))
            message = {**message, "headers": [*message["headers"], *headers]}
        await self._send(message)
        if message.get("body"):
            self.ended = time.perf_counter()


def _request_id(headers: Headers) -> str:
    """The caller's X-Request-Id if that is harmless, else a new id."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):016x}"
