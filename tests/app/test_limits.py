"""Each limit by its default, its place in the docs and its refusal, which names it; what is within it is taken."""

import json
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from docs import pages, tables
from l2v.app.engine.inputs import DefaultInstruction, InputGroup, estimate_tokens
from l2v.app.http.schemas.native import EmbedRequest
from l2v.app.settings import Settings
from l2v.models import Encoder, Input
from tests.gated import GatedEncoder
from tests.serving import LOAD_SECONDS, LocalServer, ServerProcess, wait_for

# Setting → (a small value, what is within it, what is beyond, status): bodies of /embed.
BODIES: dict[str, tuple[int, dict[str, Any], dict[str, Any], int]] = {
    "max_inputs": (2, {"inputs": ["a"] * 2}, {"inputs": ["a"] * 3}, 413),
    "max_characters": (5, {"inputs": "abcde"}, {"inputs": "abcdef"}, 422),
    "max_length": (
        16,
        {"inputs": "abcde", "instruction": "i" * 9, "truncate": False},
        {"inputs": "abcde", "instruction": "i" * 10, "truncate": False},
        422,
    ),
    "doc_max_length": (8, {"inputs": "a" * 8, "truncate": False}, {"inputs": "a" * 9, "truncate": False}, 422),
    "max_body_bytes": (40, {"inputs": "a" * 20}, {"inputs": "a" * 30}, 413),
}
# Those of the process as a whole: they have tests of their own, below or where they are named.
OTHERS = {
    "max_header_bytes": "tests/app/test_wire.py",
    "max_batch_tokens": "",
    "max_queue_tokens": "",
    "max_requests": "",
    "max_connections": "",
    "max_total_body_bytes": "",
    "request_timeout": "",
    "engine_timeout": "tests/app/test_scheduler.py",
    "drain_timeout": "tests/e2e/test_lifecycle.py",
    "idle_timeout": "tests/app/test_service.py",
}


def limits() -> set[str]:
    return {
        name for name in Settings.model_fields if name.startswith(("max_", "doc_max_")) or name.endswith("_timeout")
    }


def test_every_limit_is_tested_here() -> None:
    assert limits() >= BODIES.keys() | OTHERS.keys()
    for name in limits() - BODIES.keys() - OTHERS.keys():
        pytest.fail(f"{name} is a limit without a test")


def test_every_limit_is_bounded_by_default_documented_and_positive() -> None:
    paths = (tables.ROOT / "README.md", pages.DOCS / "settings.md")
    readme, page = (path.read_text(encoding="utf-8") for path in paths)
    for name in limits():
        field = Settings.model_fields[name]
        assert f"`L2V_{name.upper()}`" in readme
        assert f"`L2V_{name.upper()}`" in page
        # Where unset, the text says what holds; a limit that is none would be no default.
        assert field.default is not None or "default:" in (field.description or "").lower()
        for value in (0, -1, "inf", "nan", ""):
            with pytest.raises(ValueError, match=name):
                Settings(**{name: value})


def test_info_says_the_limits(server: LocalServer) -> None:
    said = server.client.get("/info").json()["limits"]
    assert {name: getattr(Settings(), name) for name in said} == said
    assert {"max_inputs", "max_characters", "max_body_bytes", "max_header_bytes"} <= said.keys()


@pytest.mark.parametrize("name", BODIES)
def test_a_request_beyond_a_limit_is_refused_by_its_name(name: str, adapter: Any) -> None:
    value, within, beyond, status = BODIES[name]
    settings = {"model": str(adapter), "dtype": "float32", name: value}
    with LocalServer(Settings(**settings).load(), **settings) as server:
        assert server.client.post("/embed", json=within).status_code == 200
        refused = server.client.post("/embed", json=beyond)
        assert refused.status_code == status
        assert name in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/similarity", {"queries": ["a"] * 2, "documents": ["b"] * 2}),
        ("/v1/embeddings", {"input": ["a"] * 4}),
        ("/v1/embeddings", {"input": [[1]] * 4}),
        ("/tei/embed", {"inputs": ["a"] * 4}),
        ("/tei/embed_all", {"inputs": ["a"] * 4}),
        ("/tei/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 3}}),
        ("/tei/tokenize", {"inputs": ["a"] * 4}),
        ("/tei/decode", {"ids": [[1]] * 4}),
        ("/tei/v1/embeddings", {"input": ["a"] * 4}),
    ],
)
def test_every_surface_counts_its_inputs(path: str, content: dict[str, Any], encoder: Encoder) -> None:
    with LocalServer(encoder, max_inputs=3) as server:
        refused = server.client.post(path, json=content)
        assert refused.status_code == 413
        assert "at most 3 (max_inputs)" in refused.text


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [("/embed", "inputs", 422), ("/v1/embeddings", "input", 400), ("/tei/embed", "inputs", 413)],
)
def test_lists_are_not_read_beyond_what_any_server_takes_or_behind_the_first_error(
    path: str, name: str, status: int, server: LocalServer
) -> None:
    refused = server.client.post(path, json={name: ["a"] * 65_537})
    assert refused.status_code == 413
    assert "max_inputs" in refused.text
    refused = server.client.post(path, json={name: [1.5] * 60_000})
    assert refused.status_code == status
    assert "expected a text" in refused.text
    with pytest.raises(ValidationError) as found:
        EmbedRequest(inputs=[1.5] * 60_000)
    assert found.value.error_count() == 1


def test_what_is_only_tokenised_is_bounded_too(encoder: Encoder) -> None:
    with LocalServer(encoder, max_queue_tokens=20, max_characters=200) as server:
        assert len(server.client.post("/tei/tokenize", json={"inputs": "a" * 15}).json()[0]) >= 15
        # More than it looks like, and more than one would look at.
        for text in ("a" * 30, "a" * 80):
            refused = server.client.post("/tei/tokenize", json={"inputs": text})
            assert (refused.status_code, "max_queue_tokens" in refused.text) == (413, True)
        refused = server.client.post("/v1/embeddings", json={"input": [1] * 201})
        assert (refused.status_code, "max_characters" in refused.text) == (400, True)


def test_room_is_kept_for_what_will_be_computed() -> None:
    inputs = [Input("a" * 4000, "i" * 400), Input("b", "i" * 40)]
    group = InputGroup("inputs", inputs, DefaultInstruction("", "instruction"))
    assert estimate_tokens([group], max_length=512) == 512 + 11
    assert estimate_tokens([group]) == 1101 + 11


def test_a_forward_pass_of_all_states_keeps_to_its_budget(encoder: Encoder) -> None:
    with LocalServer(encoder, max_batch_tokens=16) as server:
        assert server.client.post("/tei/embed_all", json={"inputs": "a" * 15}).status_code == 200
        refused = server.client.post("/tei/embed_all", json={"inputs": "a" * 16})
        assert (refused.status_code, "max_batch_tokens" in refused.text) == (413, True)


@pytest.mark.parametrize(("name", "value"), [("max_requests", 1), ("max_queue_tokens", 20)])
def test_too_much_at_once_is_refused_by_the_name_of_the_limit(name: str, value: int, gated: GatedEncoder) -> None:
    with LocalServer(gated, **{name: value}) as server, ThreadPoolExecutor(2) as pool:
        gated.gate.clear()
        before = len(gated.started)

        def send() -> httpx.Response:
            return httpx.post(f"{server.url}/embed", json={"inputs": "a" * 20}, timeout=60)

        held = [pool.submit(send)]
        wait_for(lambda: len(gated.started) > before)
        if name == "max_queue_tokens":
            held.append(pool.submit(send))
            wait_for(lambda: server.service._scheduler.queue_tokens > 0)
        refused = server.client.post("/embed", json={"inputs": "a" * 20})
        gated.gate.set()
        assert refused.status_code == 429
        assert name in refused.json()["error"]["message"]
        assert int(refused.headers["Retry-After"]) >= 1
        assert [future.result().status_code for future in held] == [200] * len(held)


def test_work_and_uploads_that_take_too_long_are_given_up_by_the_name_of_the_limit(gated: GatedEncoder) -> None:
    with LocalServer(gated, request_timeout=0.5) as server:
        gated.gate.clear()
        late = server.client.post("/embed", json={"inputs": "a"})
        gated.gate.set()
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=20) as connection:
            connection.sendall(b"POST /embed HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
            upload = connection.recv(65_536)
    assert late.status_code == 504
    assert "request_timeout" in late.json()["error"]["message"]
    assert upload.startswith(b"HTTP/1.1 504")
    assert "request_timeout" in json.loads(upload.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_bodies_take_no_more_room_together_than_they_may(encoder: Encoder) -> None:
    with LocalServer(encoder, max_body_bytes=10_000, max_total_body_bytes=15_000) as server, ExitStack() as stack:
        # What has been answered, however, takes none any more.
        for body, status in [
            ({"inputs": "a" * 9000}, 200),
            ({"inputs": 5 * [9000 * "a"]}, 413),
            ({"odd": "a" * 9000}, 422),
        ] * 3:
            assert server.client.post("/embed", json=body).status_code == status
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        slow = [stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(2)]
        head = b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n"
        for connection in slow:
            connection.sendall(head + b'{"inputs": "' + b"a" * 7000)

        def send() -> httpx.Response:
            return server.client.post("/embed", json={"inputs": "a" * 2000})

        # Both, and the request that asks.
        wait_for(lambda: "l2v_requests_in_flight 3.0" in server.client.get("/metrics").text)
        time.sleep(0.3)
        refused = send()
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert "max_total_body_bytes" in refused.json()["error"]["message"]
        assert server.embed("a")["embeddings"], "what there is room for is served"
        assert re.search(r'l2v_rejected_total\{reason="bodies"\} 1', server.client.get("/metrics").text)
        slow[0].close()
        wait_for(lambda: send().status_code == 200)
        slow[1].sendall(b"a" * (9000 - 7000 - 14) + b'"}')
        assert slow[1].recv(65_536).startswith(b"HTTP/1.1 200")


# Its answer has ten megabytes, more than the system keeps for a connection.
_MANY = json.dumps({"queries": ["a"] * 1000, "documents": ["b"] * 1000}).encode()


def _ask_for_many(server: LocalServer) -> httpx.Response:
    return server.client.post("/similarity", content=_MANY, headers={"Content-Type": "application/json"})


@contextmanager
def _nobody_takes_many(server: LocalServer) -> Iterator[None]:
    post = b"POST /similarity HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        idle.sendall(post % len(_MANY) + _MANY)
        wait_for(lambda: server.service.in_flight)
        wait_for(lambda: not server.service.in_flight)
        yield


def test_answers_that_nobody_takes_count_as_well(encoder: Encoder) -> None:
    with LocalServer(encoder, max_body_bytes=20_000, max_total_body_bytes=15_000_000) as server:
        with _nobody_takes_many(server):
            refused = _ask_for_many(server)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert "max_total_body_bytes" in refused.json()["error"]["message"]
            assert server.embed("a")["embeddings"], "what there is room for is served"
        wait_for(lambda: _ask_for_many(server).status_code == 200)


def test_operators_are_answered_while_one_answer_takes_more_than_all_room(encoder: Encoder) -> None:
    with LocalServer(encoder, max_body_bytes=20_000, max_total_body_bytes=5_000_000) as server:
        with _nobody_takes_many(server):
            assert server.client.post("/embed", json={"inputs": "a"}).status_code == 429
            for path in ("/health", "/ready", "/metrics", "/info"):
                assert server.client.get(path).status_code == 200, path
        wait_for(lambda: server.client.post("/embed", json={"inputs": "a"}).status_code == 200)


@pytest.mark.parametrize("refused_by", ["size", "key"])
def test_who_sends_all_before_reading_is_told_too(refused_by: str, encoder: Encoder) -> None:
    """As `urllib` does, which fails on a connection that is closed meanwhile."""
    settings: dict[str, Any] = {"size": {"max_body_bytes": 1000}, "key": {"api_keys": "secret"}}[refused_by]
    body = json.dumps({"inputs": "a" * 10_000_000}).encode()
    with LocalServer(encoder, **settings) as server:
        request = urllib.request.Request(f"{server.url}/embed", body, {"Content-Type": "application/json"})  # noqa: S310
        for _ in range(3):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request)  # noqa: S310
            with refused.value as answer:
                assert answer.code == {"size": 413, "key": 401}[refused_by]
                assert answer.headers["Connection"] == "close"


def test_the_rest_of_a_refused_body_takes_none_of_the_time_of_its_answer(encoder: Encoder) -> None:
    with LocalServer(encoder, max_body_bytes=1000) as server:
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        with socket.create_connection(address, timeout=20) as connection:
            head = b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"
            connection.sendall(head)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 413")
            time.sleep(1)
            connection.sendall(b"a" * 4998)
            time.sleep(0.5)
            connection.sendall(b"a")
            assert connection.recv(65_536) == b"", "closed at the end of the body"
        taken = re.search(r'l2v_request_seconds_sum\{route="/embed"\} (\S+)', server.client.get("/metrics").text)
    assert taken
    assert float(taken[1]) < 1


def test_a_body_that_may_come_has_room() -> None:
    with pytest.raises(ValidationError, match="max_total_body_bytes must be at least max_body_bytes"):
        Settings(max_body_bytes=100, max_total_body_bytes=99)


def test_connections_beyond_their_limit_are_told_so(encoder: Encoder) -> None:
    with LocalServer(encoder, max_connections=3) as server, ExitStack() as stack:
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        # The client has one already.
        first, _ = (stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(2))
        wait_for(lambda: server.connections == 3)
        refused = httpx.get(f"{server.url}/health")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert "max_connections" in refused.json()["error"]["message"]
        assert 'l2v_rejected_total{reason="connections"} 1.0' in server.client.get("/metrics").text
        assert server.embed("a")["embeddings"], "those that are open go on"
        first.close()
        wait_for(lambda: server.connections < 3)
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_more_connections_than_the_process_may_open_are_refused_at_the_start() -> None:
    with ServerProcess("--max-connections", "1000000000000") as server:
        assert server.process.wait(LOAD_SECONDS) == 1
        assert "max_connections 1000000000000 requires" in server.log
        assert "Traceback" not in server.log


def test_the_page_and_the_api_have_their_security_headers(demo: ServerProcess) -> None:
    for path in ("/", "/docs", "/playground/main.js"):
        headers = demo.client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "geolocation=()" in headers["Permissions-Policy"]
    for path in ("/", "/docs", "/info", "/nothing", "/metrics", "/health"):
        headers = demo.client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "server" not in headers
