"""OpenTelemetry traces: one span a request by the official instrumentation, one below it for each stage."""

import threading
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from l2v.app import __version__
from l2v.app.http.telemetry import Timings, route_of

_PATH = "/v1/traces"
# Probes and scrapes would drown the rest.
_UNTRACED = "/(tei/)?(health|ready|metrics|ping)$"
# Left for the last spans; of itself the exporter tries for half a minute to reach a collector that is away.
_CLOSE_SECONDS = 3.0


class Tracing:
    """Sends spans to an OTLP collector. Needs the extra `otel`.

    Args:
        endpoint: the collector's address, like `http://localhost:4318`, with or without the path of traces.
    """

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "l2v", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        base = endpoint.rstrip("/").removesuffix(_PATH)
        exporter = OTLPSpanExporter(endpoint=f"{base}{_PATH}")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("l2v")

    def instrument(self, app: FastAPI, routes: frozenset[str]) -> None:
        """Puts the instrumentation around the application, outside of all else; only `routes` are named in spans."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=_UNTRACED,
            exclude_spans=["receive", "send"],
            server_request_hook=_hide(routes),
        )

    def record(self, timings: Timings) -> None:
        """A span for each stage, below the request's."""
        for stage, started in timings.started.items():
            span = self._tracer.start_span(stage, start_time=int(started * 1e9))
            span.end(int((started + timings[stage]) * 1e9))

    def close(self) -> None:
        """Sends what is left, or gives it up after a while."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


def _hide(routes: frozenset[str]) -> Callable[[Any, Any], None]:
    """Takes out of a span what the caller wrote: a path that we do not have, what is behind `?`, and its own name."""

    def hide(span: Any, scope: Any) -> None:
        route = route_of(scope["path"], routes)
        for name in ("http.url", "http.target", "url.full", "url.path"):
            if name in (span.attributes or {}):
                span.set_attribute(name, route)
        for name in (
            "url.query",
            "http.user_agent",
            "user_agent.original",
            "http.host",
            "http.server_name",
            "server.address",
        ):
            if name in (span.attributes or {}):
                span.set_attribute(name, "")

    return hide
