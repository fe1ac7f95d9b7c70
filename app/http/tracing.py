"""OpenTelemetry traces: one span per request by the official instrumentation, with a child span per stage."""

import re
import threading
from typing import Any

from fastapi import FastAPI

from l2v.app import __version__
from l2v.app.engine.timings import Timings
from l2v.app.http.surfaces import Targets

_PATH = "/v1/traces"
# Seconds to wait for the last spans; by default, the exporter waits half a minute for an unreachable collector.
_CLOSE_SECONDS = 3.0
# Span attributes that hold the path as the caller sent it, and those that hold other text from the caller.
_PATHS = ("http.url", "http.target", "url.full", "url.path")
_TEXTS = ("url.query", "http.user_agent", "user_agent.original", "http.host", "http.server_name", "server.address")


class Tracing:
    """Sends spans to an OTLP collector. Requires the extra `otel`.

    Args:
        endpoint: the collector's address, like `http://localhost:4318`, with or without `/v1/traces`.
    """

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "l2v", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/').removesuffix(_PATH)}{_PATH}")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("l2v")

    def instrument(self, app: FastAPI, targets: Targets) -> None:
        """Wraps the application in the instrumentation, outside all other layers. Probes are not traced."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        def hide_texts(span: Any, scope: Any) -> None:
            """Removes the caller's text from a span: replaces paths with routes, and clears query strings and names."""
            for name in (span.attributes or {}).keys() & {*_PATHS, *_TEXTS}:
                span.set_attribute(name, targets.find(scope["path"]).route if name in _PATHS else "")

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=",".join(f"://[^/]*{re.escape(path)}/?$" for path in targets.probes),
            exclude_spans=["receive", "send"],
            server_request_hook=hide_texts,
        )

    def record(self, timings: Timings) -> None:
        """Adds a span for each stage to the request's span."""
        for stage, started in timings.started.items():
            span = self._tracer.start_span(stage, start_time=int(started * 1e9))
            span.end(int((started + timings[stage]) * 1e9))

    def close(self) -> None:
        """Sends the remaining spans, or drops them after a few seconds."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)
