"""Overload, deadlines, disconnects, slow clients and failures, with forward passes that wait at a gate."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from l2v.app.engine.profile import Profile
from l2v.app.engine.vectors import Vectors
from l2v.models import Encoder, Encoding, load
from l2v.models.types import DType
from tests.dtypes import MIN_COSINE
from tests.gated import GatedEncoder
from tests.serving import LocalServer, wait_for


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def hold(gated: GatedEncoder, send: Callable[..., "Future[httpx.Response]"]) -> "Future[httpx.Response]":
    """Closes the gate and occupies the engine with a request."""
    before = len(gated.started)
    gated.gate.clear()
    held = send("first")
    wait_for(lambda: len(gated.started) > before, what="a batch at the gate")
    return held


def connect(server: LocalServer, receive_buffer: int | None = None) -> socket.socket:
    """Opens a raw connection, optionally with a receive buffer of this many bytes."""
    made = socket.socket()
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(20)
    made.connect(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
    return made


def head(length: int) -> bytes:
    return b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % length


def sender(server: LocalServer, pool: ThreadPoolExecutor):  # type: ignore[no-untyped-def]
    def send(*texts: str) -> "Future[httpx.Response]":
        return pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": list(texts)}, timeout=60)

    return send


def test_a_full_queue_returns_429_with_retry_after(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, max_queue_tokens=4) as server:
        send = sender(server, pool)
        running = hold(gated, send)
        waiting = send("second")
        wait_for(lambda: server.service.engine.queue_tokens > 0)
        rejected = send("the third is one too many").result()
        compatible = {
            path: httpx.post(f"{server.url}{path}", json={name: "and so is this"}, timeout=60)
            for path, name in (("/v1/embeddings", "input"), ("/tei/embed", "inputs"), ("/tei/v1/embeddings", "input"))
        }
        gated.gate.set()
        for response in compatible.values():
            assert (response.status_code, int(response.headers["Retry-After"]) >= 1) == (429, True)
        assert compatible["/v1/embeddings"].json()["error"]["type"] == "rate_limit_error"
        assert compatible["/tei/embed"].json()["error_type"] == "Overloaded"
        assert compatible["/tei/v1/embeddings"].json()["type"] == "Overloaded"
        assert rejected.status_code == 429
        assert int(rejected.headers["Retry-After"]) >= 1
        assert rejected.json()["error"]["type"] == "overloaded"
        assert "max_queue_tokens" in rejected.json()["error"]["message"]
        assert [running.result().status_code, waiting.result().status_code] == [200, 200]
        assert send("and all is well again").result().status_code == 200


def test_a_request_beyond_its_deadline_gets_504_and_is_dropped(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, request_timeout=2) as server:
        send = sender(server, pool)
        late, queued = hold(gated, send), send("queued after it")
        assert [late.result().status_code, queued.result().status_code] == [504, 504]
        before = len(gated.batches)
        gated.gate.set()
        assert send("on time").result().status_code == 200
        assert gated.batches[before:] == [1, 1]  # the first and the last; the queued request was dropped


def test_the_work_of_a_disconnected_client_is_dropped(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, max_batch_tokens=512) as server:
        send = sender(server, pool)
        running = hold(gated, send)
        leaver = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        content = b'{"inputs": ["leaving soon"]}'
        leaver.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
        )
        wait_for(lambda: server.service.engine.queue_tokens > 0, what="queued")
        leaver.close()
        wait_for(lambda: server.service.in_flight == 1, what="the permit to be released")
        before = len(gated.batches)
        gated.gate.set()
        assert running.result().status_code == 200
        assert send("after").result().status_code == 200
        assert gated.batches[before:] == [1, 1]
        assert 'l2v_requests_total{model="demo",route="/embed",status="499"} 1.0' in server.client.get("/metrics").text


def test_a_hanging_engine_is_down_and_fails_waiting_requests(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, engine_timeout=2) as server:
        assert server.client.get("/health").status_code == 200
        gated.gate.clear()
        hung = sender(server, pool)("a")
        wait_for(lambda: server.client.get("/health").status_code == 503)
        assert server.client.get("/health").json() == {"status": "down"}
        assert server.client.get("/ready").status_code == 503
        assert server.client.post("/embed", json={"inputs": "a"}).json()["error"]["type"] == "unavailable"
        assert "l2v_engine_up 0.0" in server.client.get("/metrics").text
        rejected = hung.result()
        assert (rejected.status_code, "engine_timeout" in rejected.json()["error"]["message"]) == (503, True)
        gated.gate.set()
        wait_for(lambda: server.failures)
        assert "engine_timeout" in server.failures[0]
        # It stays down, because the process must end.
        assert server.client.get("/health").status_code == 503


def test_a_key_may_contain_non_ascii_letters(encoder: Encoder) -> None:
    with LocalServer(encoder, api_keys="schlüssel") as server:
        headers = {"Authorization": "Bearer schlüssel".encode()}
        assert server.client.post("/embed", json={"inputs": "a"}, headers=headers).status_code == 200  # type: ignore[arg-type]


def test_one_deadline_covers_the_upload_and_the_work(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, request_timeout=1.5) as server:
        hold(gated, sender(server, pool))
        with connect(server) as slow:
            content = b'{"inputs": "slow"}'
            slow.sendall(head(len(content)) + content[:5])
            assert not threading.Event().wait(1)
            slow.sendall(content[5:])
            started = time.monotonic()
            assert slow.recv(100).startswith(b"HTTP/1.1 504")
            assert time.monotonic() - started < 1.4


def test_a_slow_sender_holds_no_permit(encoder: Encoder) -> None:
    with LocalServer(encoder, max_requests=1) as server, connect(server) as slow:
        slow.sendall(head(99) + b"{")
        wait_for(lambda: "l2v_requests_in_flight 2.0" in server.client.get("/metrics").text)
        assert server.embed("at the same time")["tokens"]


def test_a_slow_reader_holds_no_permit_and_is_disconnected(encoder: Encoder) -> None:
    with LocalServer(encoder, max_requests=1, request_timeout=8, max_inputs=4000) as server:
        content = json.dumps({"queries": ["a"] * 2000, "documents": ["b"] * 2000}).encode()
        with connect(server, receive_buffer=4096) as slow:
            slow.sendall(head(len(content)).replace(b"/embed", b"/similarity") + content)
            wait_for(lambda: server.service.in_flight == 1, what="work")
            wait_for(lambda: server.service.in_flight == 0, what="the permit to be released")
            assert "l2v_requests_in_flight 2.0" in server.client.get("/metrics").text
            assert server.embed("at the same time")["tokens"]
            wait_for(lambda: "l2v_requests_in_flight 1.0" in server.client.get("/metrics").text, 60, "disconnect")
            headers, _, body = read_all(slow).partition(b"\r\n\r\n")
            assert headers.startswith(b"HTTP/1.1 200")
            assert len(body) < int(headers.lower().partition(b"content-length: ")[2].split()[0])


def read_all(connection: socket.socket) -> bytes:
    read = b""
    while piece := connection.recv(1_000_000):
        read += piece
    return read


@pytest.mark.parametrize("sent", [b"", b"POST /embed HTTP/1.1\r\nX-Slow: "])
def test_a_connection_without_a_request_is_closed(encoder: Encoder, sent: bytes) -> None:
    with LocalServer(encoder, idle_timeout=0.5) as server, connect(server) as idle:
        idle.sendall(sent)
        assert idle.recv(100) == b""


def test_a_connection_is_kept_alive_until_it_is_idle_too_long(encoder: Encoder) -> None:
    with LocalServer(encoder, idle_timeout=2.5) as server, connect(server) as kept:
        for _ in range(3):
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(1000).startswith(b"HTTP/1.1 200")
            assert not threading.Event().wait(1)
        assert kept.recv(100) == b""


def test_overload_is_rejected_before_the_body_is_parsed(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, max_requests=1) as server:
        held = hold(gated, sender(server, pool))
        rejected = server.client.post("/embed", content=b"no JSON", headers={"Content-Type": "application/json"})
        assert rejected.status_code == 429
        gated.gate.set()
        held.result()


def test_an_input_that_fails_the_model_is_named(gated: GatedEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = GatedEncoder.forward

    def broken(self: GatedEncoder, encodings: list[Encoding]) -> list[Vectors]:
        rows: list[Vectors] = forward(self, encodings)
        return [row * np.nan if len(encoding) > 30 else row for row, encoding in zip(rows, encodings, strict=True)]

    monkeypatch.setattr(GatedEncoder, "forward", broken)
    with LocalServer(gated) as server:
        texts = {"queries": ["a", "b"], "documents": ["c", "d", "long " * 10]}
        response = server.client.post("/similarity", json=texts)
        assert (response.status_code, response.json()["error"]["param"]) == (500, "documents[2].text")
        assert server.embed(["a", "b"])["tokens"]


def test_an_input_beyond_the_first_chunk_is_named(server: LocalServer) -> None:
    content = {"inputs": ["fine"] * 150 + ["long " * 300], "truncate": False}
    assert server.client.post("/embed", json=content).json()["error"]["param"] == "inputs[150].text"
    instruction = {"inputs": [*["fine"] * 150, ["long " * 300, "text"]]}
    assert server.client.post("/embed", json=instruction).json()["error"]["param"] == "inputs[150].instruction"


def test_probes_may_use_head(server: LocalServer) -> None:
    assert server.client.head("/health").status_code == server.client.head("/ready").status_code == 200


class PanicError(BaseException):
    """Like a panic in the tokenizers library: not an `Exception`."""


@pytest.mark.parametrize("kind", [KeyError, PanicError])
def test_a_bug_returns_the_request_id_and_nothing_else(
    gated: GatedEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    def broken(self: object, inputs: object) -> None:
        raise kind("the secret text")

    with LocalServer(gated, cors_origins="*") as server:
        monkeypatch.setattr(Profile, "tokenize", broken)
        response = server.client.post("/embed", json={"inputs": "the secret text"}, headers={"Origin": "http://a"})
    # A page of another origin can read the error.
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "X-Request-Id" in response.headers["Access-Control-Expose-Headers"]
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (500, "internal")
    request_id = response.headers["X-Request-Id"]
    assert error["message"] == f"the service has a bug; its log describes the error of request {request_id}"
    assert "secret" not in response.text + caplog.text
    assert any(record.message == "bug" for record in caplog.records)


@pytest.mark.parametrize(("dtype", "min_cosine"), MIN_COSINE.items())
def test_vectors_do_not_depend_on_the_batch_under_load(adapter: Path, dtype: DType, min_cosine: float) -> None:
    texts = [f"text number {i} " + "and more " * (i * 5 % 40) for i in range(60)]
    with LocalServer(load(str(adapter), dtype=dtype)) as server:
        alone = {text: np.array(server.embed(text)["embeddings"][0]) for text in texts}
        with ThreadPoolExecutor(16) as pool:
            crowd = list(pool.map(lambda text: np.array(server.embed(text)["embeddings"][0]), texts * 4))
    assert min(float(vector @ alone[text]) for text, vector in zip(texts * 4, crowd, strict=True)) >= min_cosine
