"""Metrics, Server-Timing and the line that is logged of a request, all from the same timings object."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2v.app.http.errors import InternalError, UnavailableError, answer
from l2v.app.logs import outline

logger = logging.getLogger("l2v.requests")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CLIENT_CLOSED = 499
# Asked every few seconds by machines.
_PROBES = ("/health", "/ready", "/metrics", "/tei/health", "/tei/ping", "/tei/metrics")


def route_of(path: str, routes: frozenset[str]) -> str:
    """The route that a path belongs to: one of few, whatever callers write."""
    if path in routes:
        return path
    return next((route for route in routes if "{" in route and path.startswith(route.partition("{")[0])), "other")


class Timings(dict[str, float]):
    """Seconds spent in each stage of one request, in the order of the stages.

    Attributes:
        started: when each stage began, in seconds since the epoch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        clock, started = time.time(), time.perf_counter()
        try:
            yield
        finally:
            self.add(name, clock, time.perf_counter() - started)

    def add(self, name: str, started: float, seconds: float) -> None:
        """Records a stage that was timed elsewhere."""
        self.started[name], self[name] = started, seconds

    def header(self) -> str:
        """As a `Server-Timing` header, in milliseconds."""
        return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in self.items())


class Metrics:
    """The service's Prometheus metrics, in a registry of their own."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)
        prometheus_client.PlatformCollector(registry=registry)
        prometheus_client.GCCollector(registry=registry)
        self.requests = Counter("l2v_requests", "Requests by route and status.", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "l2v_request_seconds", "Time in the service.", ["route"], buckets=_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "l2v_stage_seconds", "Time of a request in each stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.inputs = Counter("l2v_inputs", "Inputs tokenised.", registry=registry)
        self.tokens = Counter("l2v_tokens", "Tokens of these inputs.", registry=registry)
        self.truncated = Counter("l2v_truncated_inputs", "Inputs that were shortened.", registry=registry)
        self.batch_tokens = Histogram(
            "l2v_batch_tokens", "Tokens in a batch.", buckets=[2**i for i in range(3, 16)], registry=registry
        )
        self.batch_inputs = Histogram(
            "l2v_batch_inputs", "Inputs in a batch.", buckets=[2**i for i in range(12)], registry=registry
        )
        self.batch_seconds = Histogram(
            "l2v_batch_seconds", "Time of a forward pass.", buckets=_SECONDS, registry=registry
        )
        self.batches = Counter("l2v_batches", "Forward passes by outcome.", ["outcome"], registry=registry)
        self.batch_budget = Gauge(
            "l2v_batch_budget_tokens", "Tokens that a batch may have; lowered where memory ran out.", registry=registry
        )
        self.queue_tokens = Gauge("l2v_queue_tokens", "Tokens that wait for a batch.", registry=registry)
        self.queue_inputs = Gauge("l2v_queue_inputs", "Inputs that wait for a batch.", registry=registry)
        self.in_flight = Gauge("l2v_requests_in_flight", "Requests in the service.", registry=registry)
        self.rejected = Counter("l2v_rejected", "Requests refused for load, by reason.", ["reason"], registry=registry)
        self.engine_up = Gauge("l2v_engine_up", "1 while the engine works.", registry=registry)
        self.model_info = Gauge(
            "l2v_model_info", "What is served; always 1.", ["model", "dtype", "device", "version"], registry=registry
        )
        self.memory = Gauge("l2v_device_memory_bytes", "Memory of the device.", ["kind"], registry=registry)

        # From the start at 0, so that rates have something to rise from.
        for reason in ("queue", "requests", "bodies", "connections"):
            self.rejected.labels(reason)
        for outcome in ("ok", "not_finite", "error", "out_of_memory", "device_lost"):
            self.batches.labels(outcome)

    def observe_batch(self, tokens: int, inputs: int, seconds: float, outcome: str) -> None:
        """Counts a forward pass that came to its end; `not_finite`: with a vector that must not leave."""
        self.batches.labels(outcome).inc()
        self.batch_tokens.observe(tokens)
        self.batch_inputs.observe(inputs)
        self.batch_seconds.observe(seconds)

    def render(self) -> bytes:
        return prometheus_client.generate_latest(self.registry)


class Telemetry:
    """The outermost layer of ours: a request id, its timings, a log line, metrics, and a 500 for what nobody caught.

    Pure ASGI. Logs never hold a text, a key or a message of an unexpected error, which may quote either.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, routes: frozenset[str], trace: Callable[[Timings], None] | None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, timings = _request_id(Headers(scope=scope)), Timings()
        outgoing = _Outgoing(send, request_id, timings)
        started = time.perf_counter()
        scope.setdefault("state", {})["timings"] = timings
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, outgoing)
        except asyncio.CancelledError:
            # The server gives up what is left at the end of draining.
            if outgoing.status == _CLIENT_CLOSED:
                await answer(UnavailableError("the service is shutting down"), scope["path"])(scope, receive, outgoing)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            logger.error("bug", extra={"request_id": request_id, **outline(error)})
            if outgoing.status == _CLIENT_CLOSED:
                await answer(InternalError(f"request {request_id}"), scope["path"])(scope, receive, outgoing)
        finally:
            self._metrics.in_flight.dec()
            self._record(scope, request_id, outgoing.status, timings, (outgoing.ended or time.perf_counter()) - started)

    def _record(self, scope: Scope, request_id: str, status: int, timings: Timings, seconds: float) -> None:
        route = route_of(scope["path"], self._routes)
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if self._trace:
            self._trace(timings)
        for stage, stage_seconds in timings.items():
            self._metrics.stage_seconds.labels(stage).observe(stage_seconds)
        stages = {f"{stage}_ms": round(1000 * value, 2) for stage, value in timings.items()}
        logger.log(
            logging.DEBUG if route in _PROBES else logging.INFO,
            "request",
            extra={"request_id": request_id, "route": route, "status": status, "ms": round(1000 * seconds, 2)} | stages,
        )


class _Outgoing:
    """The answer on its way, with the headers that every answer has.

    Attributes:
        status: of the answer; before it, that of a client that left without one.
        ended: when the last of its body was sent; 0 before.
    """

    def __init__(self, send: Send, request_id: str, timings: Timings) -> None:
        self._send = send
        self._request_id = request_id
        self._timings = timings
        self.status = _CLIENT_CLOSED
        self.ended = 0.0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            if self._timings:
                headers["Server-Timing"] = self._timings.header()
        await self._send(message)
        if message.get("body"):
            self.ended = time.perf_counter()


def _request_id(headers: Headers) -> str:
    """The caller's X-Request-Id if it is harmless, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
