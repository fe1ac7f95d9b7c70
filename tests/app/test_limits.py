"""Each limit has a default and is documented; requests within it succeed, and errors beyond it name it."""

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
import psutil
import pytest
from pydantic import ValidationError

from docs import pages
from l2v.app.engine.inputs import DefaultInstruction, InputGroup, estimate_tokens
from l2v.app.http.schemas.native import EmbedRequest
from l2v.app.settings import Settings
from l2v.models import Encoder, Input
from tests.gated import GatedEncoder
from tests.serving import LOAD_SECONDS, LocalServer, ServerProcess, wait_for

# Setting → (a small value, a body of /embed within it, a body beyond it, the status of the error).
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
# Limits of the process, with tests below or in the named file.
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
    "max_lora_modules": "tests/app/test_adapters.py",
    "max_lora_bytes": "tests/app/test_adapters.py",
}


def limits() -> set[str]:
    return {
        name for name in Settings.model_fields if name.startswith(("max_", "doc_max_")) or name.endswith("_timeout")
    }


def test_every_limit_is_tested() -> None:
    assert limits() >= BODIES.keys() | OTHERS.keys()
    for name in limits() - BODIES.keys() - OTHERS.keys():
        pytest.fail(f"{name} is a limit without a test")


def test_every_limit_has_a_default_is_documented_and_positive() -> None:
    page = (pages.DOCS / "settings.md").read_text(encoding="utf-8")
    for name in limits():
        field = Settings.model_fields[name]
        assert f"`L2V_{name.upper()}`" in page
        # A default of None must be explained in the description.
        assert field.default is not None or "default:" in (field.description or "").lower()
        for value in (0, -1, "inf", "nan", ""):
            with pytest.raises(ValueError, match=name):
                Settings(**{name: value})


def test_info_lists_the_limits(server: LocalServer) -> None:
    listed = server.client.get("/info").json()["limits"]
    assert {name: getattr(Settings(), name) for name in listed} == listed
    assert {"max_inputs", "max_characters", "max_body_bytes", "max_header_bytes"} <= listed.keys()


@pytest.mark.parametrize("name", BODIES)
def test_the_error_beyond_a_limit_names_it(name: str, adapter: Any) -> None:
    value, within, beyond, status = BODIES[name]
    settings = {"model": str(adapter), "dtype": "float32", name: value}
    with LocalServer(Settings(**settings).load(), **settings) as server:
        assert server.client.post("/embed", json=within).status_code == 200
        rejected = server.client.post("/embed", json=beyond)
        assert rejected.status_code == status
        assert name in rejected.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/similarity", {"queries": ["a"] * 2, "documents": ["b"] * 2}),
        ("/v1/embeddings", {"input": ["a"] * 4}),
        ("/v1/embeddings", {"input": [[1]] * 4}),
        ("/tei/embed", {"inputs": ["a"] * 4}),
        ("/tei/embed_all", {"inputs": ["a"] * 4}),
        ("/tei/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"] * 3}}),
        ("/tokenize", {"inputs": ["a"] * 4}),
        ("/tei/tokenize", {"inputs": ["a"] * 4}),
        ("/tei/decode", {"ids": [[1]] * 4}),
        ("/tei/v1/embeddings", {"input": ["a"] * 4}),
    ],
)
def test_every_surface_counts_its_inputs(path: str, content: dict[str, Any], encoder: Encoder) -> None:
    with LocalServer(encoder, max_inputs=3) as server:
        rejected = server.client.post(path, json=content)
        assert rejected.status_code == 413
        assert "the maximum is 3 (max_inputs)" in rejected.text


@pytest.mark.parametrize(
    ("path", "name", "status"),
    [("/embed", "inputs", 422), ("/v1/embeddings", "input", 400), ("/tei/embed", "inputs", 413)],
)
def test_long_lists_are_not_validated_beyond_the_maximum_or_the_first_error(
    path: str, name: str, status: int, server: LocalServer
) -> None:
    rejected = server.client.post(path, json={name: ["a"] * 65_537})
    assert rejected.status_code == 413
    assert "max_inputs" in rejected.text
    rejected = server.client.post(path, json={name: [1.5] * 60_000})
    assert rejected.status_code == status
    assert "expected a text" in rejected.text
    with pytest.raises(ValidationError) as found:
        EmbedRequest(inputs=[1.5] * 60_000)
    assert found.value.error_count() == 1


def test_tokenize_and_token_ids_are_limited(encoder: Encoder) -> None:
    with LocalServer(encoder, max_queue_tokens=20, max_characters=200) as server:
        assert len(server.client.post("/tei/tokenize", json={"inputs": "a" * 15}).json()[0]) >= 15
        for text in ("a" * 21, "é" * 11):
            rejected = server.client.post("/tei/tokenize", json={"inputs": text})
            assert (rejected.status_code, "max_queue_tokens" in rejected.text) == (413, True)
        rejected = server.client.post("/v1/embeddings", json={"input": [1] * 201})
        assert (rejected.status_code, "max_characters" in rejected.text) == (400, True)


def test_estimated_tokens_respect_max_length() -> None:
    inputs = [Input("a" * 4000, "i" * 400), Input("b", "i" * 40)]
    group = InputGroup("inputs", inputs, DefaultInstruction("", "instruction"))
    assert estimate_tokens([group], max_length=512) == 512 + 11
    assert estimate_tokens([group], max_length=9999) == 1101 + 11


def test_embed_all_respects_the_token_budget(encoder: Encoder) -> None:
    with LocalServer(encoder, max_batch_tokens=16) as server:
        assert server.client.post("/tei/embed_all", json={"inputs": "a" * 15}).status_code == 200
        rejected = server.client.post("/tei/embed_all", json={"inputs": "a" * 16})
        assert (rejected.status_code, "max_batch_tokens" in rejected.text) == (413, True)


@pytest.mark.parametrize(("name", "value"), [("max_requests", 1), ("max_queue_tokens", 20)])
def test_the_error_of_an_overloaded_service_names_the_limit(name: str, value: int, gated: GatedEncoder) -> None:
    with LocalServer(gated, **{name: value}) as server, ThreadPoolExecutor(2) as pool:
        gated.gate.clear()
        before = len(gated.started)

        def send() -> httpx.Response:
            return httpx.post(f"{server.url}/embed", json={"inputs": "a" * 20}, timeout=60)

        held = [pool.submit(send)]
        wait_for(lambda: len(gated.started) > before)
        if name == "max_queue_tokens":
            held.append(pool.submit(send))
            wait_for(lambda: server.service.engine.queue_tokens > 0)
        rejected = server.client.post("/embed", json={"inputs": "a" * 20})
        gated.gate.set()
        assert rejected.status_code == 429
        assert name in rejected.json()["error"]["message"]
        assert int(rejected.headers["Retry-After"]) >= 1
        assert [future.result().status_code for future in held] == [200] * len(held)


def test_the_error_of_a_timed_out_request_or_upload_names_the_limit(gated: GatedEncoder) -> None:
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


def test_the_total_size_of_bodies_is_limited(encoder: Encoder) -> None:
    with LocalServer(encoder, max_body_bytes=10_000, max_total_body_bytes=15_000) as server, ExitStack() as stack:
        # Finished requests do not count.
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

        # The two slow requests, and the scrape itself.
        wait_for(lambda: "l2v_requests_in_flight 3.0" in server.client.get("/metrics").text)
        time.sleep(0.3)
        rejected = send()
        assert (rejected.status_code, rejected.headers["Retry-After"]) == (429, "1")
        assert "max_total_body_bytes" in rejected.json()["error"]["message"]
        assert server.embed("a")["embeddings"], "smaller requests must succeed"
        assert re.search(r'l2v_rejected_total\{reason="bodies"\} 1', server.client.get("/metrics").text)
        slow[0].close()
        wait_for(lambda: send().status_code == 200)
        slow[1].sendall(b"a" * (9000 - 7000 - 14) + b'"}')
        assert slow[1].recv(65_536).startswith(b"HTTP/1.1 200")


# Its response has ten megabytes, more than a socket's buffers hold.
_LARGE = json.dumps({"queries": ["a"] * 1000, "documents": ["b"] * 1000}).encode()


def _post_large(server: LocalServer) -> httpx.Response:
    return server.client.post("/similarity", content=_LARGE, headers={"Content-Type": "application/json"})


@contextmanager
def _unread_large_response(server: LocalServer) -> Iterator[None]:
    post = b"POST /similarity HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with socket.socket() as idle:
        idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        idle.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        idle.sendall(post % len(_LARGE) + _LARGE)
        wait_for(lambda: server.service.in_flight)
        wait_for(lambda: not server.service.in_flight)
        yield


def test_bodies_of_other_methods_take_no_memory(demo: ServerProcess) -> None:
    """They need no key and no permit, so their number is limited only by the connections."""
    demo.wait_ready()
    size, resident = 15_000_000, psutil.Process(demo.process.pid).memory_info
    before = resident().rss
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", demo.port))) for _ in range(8)]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            client.sendall(bytes(size - 1))
        assert resident().rss < before + 4 * size
        for client in clients:
            client.sendall(b"0")
            assert client.recv(100).startswith(b"HTTP/1.1 200")


def test_unread_responses_count_towards_the_total(encoder: Encoder) -> None:
    with LocalServer(encoder, max_body_bytes=20_000, max_total_body_bytes=25_000_000) as server:
        with _unread_large_response(server):
            rejected = _post_large(server)
            assert (rejected.status_code, rejected.headers["Retry-After"]) == (429, "1")
            assert "max_total_body_bytes" in rejected.json()["error"]["message"]
            assert server.embed("a")["embeddings"], "smaller requests must succeed"
            for path in ("/health", "/ready", "/metrics", "/info"):
                assert server.client.get(path).status_code == 200, path
        wait_for(lambda: _post_large(server).status_code == 200)


def test_what_was_reserved_in_excess_is_given_back(encoder: Encoder) -> None:
    """The response may have 17 MB and has 10 MB, so two of them fit only once the first is computed."""
    settings: dict[str, Any] = {"max_body_bytes": 20_000, "max_total_body_bytes": 30_000_000}
    with LocalServer(encoder, **settings) as server, _unread_large_response(server):
        assert _post_large(server).status_code == 200


def test_memory_is_reserved_before_a_text_is_tokenized(gated: GatedEncoder) -> None:
    with (
        LocalServer(gated, max_body_bytes=20_000, max_total_body_bytes=20_000_000) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        gated.gate.clear()
        before = len(gated.started)
        held = pool.submit(_post_large, server)
        wait_for(lambda: len(gated.started) > before)
        rejected = _post_large(server)
        assert (rejected.status_code, rejected.headers["Retry-After"]) == (429, "1")
        assert "max_total_body_bytes" in rejected.json()["error"]["message"]
        assert 'l2v_inputs_total{model="demo"} 2000.0' in server.client.get("/metrics").text
        gated.gate.set()
        assert held.result().status_code == 200
        assert _post_large(server).status_code == 200


@pytest.mark.parametrize(
    ("path", "content", "smaller"),
    [
        ("/embed", {"inputs": ["a"] * 50}, {"inputs": ["a"] * 50, "encoding_format": "base64"}),
        ("/v1/embeddings", {"input": ["a"] * 50}, {"input": ["a"] * 50, "dimensions": 4}),
        ("/similarity", {"queries": ["a"] * 50}, {"queries": ["a"] * 50, "top_k": 1}),
        ("/tei/embed", {"inputs": ["a"] * 50}, {"inputs": ["a"] * 10}),
        ("/tei/embed_all", {"inputs": "a" * 50}, {"inputs": "a" * 10}),
        ("/tokenize", {"inputs": ["a" * 50] * 8}, {"inputs": "a" * 10}),
        ("/tei/tokenize", {"inputs": "a" * 500}, {"inputs": "a" * 10}),
        ("/tei/decode", {"ids": [97] * 5000}, {"ids": [97] * 10}),
    ],
)
def test_a_response_that_can_never_fit_is_rejected_before_the_forward_pass(
    path: str, content: dict[str, Any], smaller: dict[str, Any], gated: GatedEncoder
) -> None:
    with LocalServer(gated, max_body_bytes=20_000, max_total_body_bytes=27_000) as server:
        before = len(gated.started)
        rejected = server.client.post(path, json=content)
        assert (rejected.status_code, "(max_total_body_bytes)" in rejected.text) == (413, True)
        assert len(gated.started) == before
        assert server.client.post(path, json=smaller).status_code == 200


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/tei/embed"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"a":1' + b',"k":1' * 10_000, "keys (max_inputs)"),
        (b'{"a":[' + b'"a",' * 20_000, "strings (max_inputs)"),
        (b'{"a":[' + b"[]," * 10_000, "arrays and objects (max_inputs)"),
        (b'{"a":[1' + b",1" * 1_100_000, "values (split it into several requests)"),
    ],
)
def test_what_a_body_is_made_of_is_limited_while_it_arrives(
    path: str, content: bytes, what: str, server: LocalServer
) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=60) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 16000000\r\n\r\n"
        connection.sendall(head.encode() + content)  # the rest never comes
        answer = ""
        while not answer.endswith("}") and (part := connection.recv(65_536)):
            answer += part.decode()
    assert answer.startswith("HTTP/1.1 413")
    assert what in answer


@pytest.mark.parametrize("reason", ["size", "key"])
def test_a_client_that_sends_everything_before_reading_gets_the_error(reason: str, encoder: Encoder) -> None:
    """`urllib` does so, and fails if the connection is closed meanwhile."""
    settings: dict[str, Any] = {"size": {"max_body_bytes": 1000}, "key": {"api_keys": "secret"}}[reason]
    body = json.dumps({"inputs": "a" * 10_000_000}).encode()
    with LocalServer(encoder, **settings) as server:
        request = urllib.request.Request(f"{server.url}/embed", body, {"Content-Type": "application/json"})  # noqa: S310
        for _ in range(3):
            with pytest.raises(urllib.error.HTTPError) as rejected:
                urllib.request.urlopen(request)  # noqa: S310
            with rejected.value as response:
                assert response.code == {"size": 413, "key": 401}[reason]
                assert response.headers["Connection"] == "close"


def test_the_rest_of_a_rejected_body_does_not_count_as_request_time(encoder: Encoder) -> None:
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
            assert connection.recv(65_536) == b"", "the connection must be closed at the end of the body"
        taken = re.search(r'l2v_request_seconds_sum\{route="/embed"\} (\S+)', server.client.get("/metrics").text)
    assert taken
    assert float(taken[1]) < 1


def test_max_total_body_bytes_must_allow_one_body() -> None:
    with pytest.raises(ValidationError, match="max_total_body_bytes must be at least max_body_bytes"):
        Settings(max_body_bytes=100, max_total_body_bytes=99)


def test_connections_beyond_the_limit_get_an_error(encoder: Encoder) -> None:
    with LocalServer(encoder, max_connections=3) as server, ExitStack() as stack:
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        # The server's client already has one.
        first, _ = (stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(2))
        wait_for(lambda: server.connections == 3)
        rejected = httpx.get(f"{server.url}/health")
        assert (rejected.status_code, rejected.headers["Retry-After"]) == (429, "1")
        assert "max_connections" in rejected.json()["error"]["message"]
        assert 'l2v_rejected_total{reason="connections"} 1.0' in server.client.get("/metrics").text
        assert server.embed("a")["embeddings"], "open connections must still work"
        first.close()
        wait_for(lambda: server.connections < 3)
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_more_connections_than_file_descriptors_fail_the_start() -> None:
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
