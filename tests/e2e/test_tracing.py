"""Traces sent by a real OTLP exporter: one span per request, a child span per stage, and no texts."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from l2v.models import Encoder
from tests.serving import LocalServer, free_port, listening, wait_for

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

RECEIVED: list[bytes] = []


class Collector(BaseHTTPRequestHandler):
    """Stores the requests of an OTLP exporter."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if found := self.path == "/v1/traces":
            RECEIVED.append(body)
        self.send_response(200 if found else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    with listening(Collector) as address:
        yield address


def spans() -> list[Span]:
    requests = [ExportTraceServiceRequest.FromString(body) for body in RECEIVED]
    return [
        span
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


@pytest.mark.parametrize("path", ["", "/v1/traces"])
def test_a_request_is_one_span_with_a_child_span_per_stage(encoder: Encoder, endpoint: str, path: str) -> None:
    RECEIVED.clear()
    with LocalServer(encoder, otlp_endpoint=f"{endpoint}{path}") as server:
        server.client.post("/embed?note=swordfish", json={"inputs": "swordfish", "instruction": "albatross"})
        server.client.get("/ready")
        server.client.get("/swordfish/albatross", headers={"User-Agent": "swordfish", "Host": "albatross"})
        server.client.get("/v1/models/swordfish")
    wait_for(lambda: len(spans()) >= 7, what="spans")
    request, *others = sorted(
        (span for span in spans() if span.kind == Span.SPAN_KIND_SERVER), key=lambda span: span.start_time_unix_nano
    )
    assert len(others) == 2
    assert request.name == "POST /embed"
    stages = [span for span in spans() if span.parent_span_id == request.span_id]
    assert [span.name for span in stages] == ["tokenize", "queue", "forward", "finish"]
    for span in stages:
        assert request.start_time_unix_nano <= span.start_time_unix_nano + 5_000_000
        assert span.end_time_unix_nano <= request.end_time_unix_nano + 5_000_000
    for secret in (b"swordfish", b"albatross"):
        assert not any(secret in body for body in RECEIVED)


def test_an_unreachable_collector_does_not_delay_the_shutdown(encoder: Encoder) -> None:
    with LocalServer(encoder, otlp_endpoint=f"http://127.0.0.1:{free_port()}") as server:
        server.embed("hello")
        ending = time.monotonic()
    assert time.monotonic() - ending < 10
