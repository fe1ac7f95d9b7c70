"""OpenTelemetry traces: one span a request by the official instrumentation, one below it for each stage."""

from fastapi import FastAPI

from app import __version__
from app.telemetry import Timings

# Probes and scrapes would drown the rest.
_UNTRACED = "health,ready,metrics"


class Tracing:
    """Sends spans to an OTLP collector. Needs the extra `otel`.

    Args:
        endpoint: the collector's address, like `http://localhost:4318`.
    """

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create({"service.name": "l2v", "service.version": __version__})
        self._provider = TracerProvider(resource=resource)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("l2v")

    def instrument(self, app: FastAPI) -> None:
        """Puts the instrumentation around the application, outside of all else."""
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=_UNTRACED,
            exclude_spans=["receive", "send"],
            server_request_hook=_without_query,
        )

    def record(self, timings: Timings) -> None:
        """A span for each stage, below the request's."""
        for stage, started in timings.started.items():
            span = self._tracer.start_span(stage, start_time=int(started * 1e9))
            span.end(int((started + timings[stage]) * 1e9))

    def close(self) -> None:
        """Sends what is left."""
        self._provider.shutdown()


def _without_query(span, scope) -> None:  # type: ignore[no-untyped-def]
    """Leaves out what a caller wrote behind the `?` and says of itself: either may hold a text."""
    for name in ("http.url", "http.target", "url.full", "url.path"):
        if name in (span.attributes or {}):
            span.set_attribute(name, scope["path"])
    span.set_attribute("url.query", "")
