"""Load, deadlines, keys and clients that leave, with a forward pass that waits at a gate."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from models import Encoder, load
from models.types import DType
from tests.gated import GatedEncoder
from tests.serving import LocalServer, wait_for


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as made:
        yield made


def hold(gated: GatedEncoder, send: Callable[..., "Future[httpx.Response]"]) -> "Future[httpx.Response]":
    """Shuts the gate and keeps the engine at it with a request of its own."""
    before = len(gated.started)
    gated.gate.clear()
    held = send("first")
    wait_for(lambda: len(gated.started) > before, what="a batch at the gate")
    return held


def sender(server: LocalServer, pool: ThreadPoolExecutor):  # type: ignore[no-untyped-def]
    def send(*texts: str) -> "Future[httpx.Response]":
        return pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": list(texts)}, timeout=60)

    return send


def test_a_full_queue_answers_429_and_when_to_return(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, max_queue_tokens=8) as server:
        send = sender(server, pool)
        running = hold(gated, send)
        waiting = send("second")
        wait_for(lambda: server.service._scheduler.queue_tokens > 0)
        refused = send("the third is one too many").result()
        theirs = {
            path: httpx.post(f"{server.url}{path}", json={name: "and so is this"}, timeout=60)
            for path, name in (("/v1/embeddings", "input"), ("/tei/embed", "inputs"), ("/tei/v1/embeddings", "input"))
        }
        gated.gate.set()
        for answer in theirs.values():
            assert (answer.status_code, int(answer.headers["Retry-After"]) >= 1) == (429, True)
        assert theirs["/v1/embeddings"].json()["error"]["type"] == "rate_limit_error"
        assert theirs["/tei/embed"].json()["error_type"] == "Overloaded"
        assert theirs["/tei/v1/embeddings"].json()["type"] == "Overloaded"
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["error"]["type"] == "overloaded"
        assert "max_queue_tokens" in refused.json()["error"]["message"]
        assert [running.result().status_code, waiting.result().status_code] == [200, 200]
        assert send("and all is well again").result().status_code == 200


def test_permits_bound_the_requests_in_the_house(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, max_requests=2) as server:
        send = sender(server, pool)
        gated.gate.clear()
        held = [send("a"), send("b")]
        wait_for(lambda: server.service._permits == 0)
        refused = send("c").result()
        gated.gate.set()
        assert refused.status_code == 429
        assert [future.result().status_code for future in held] == [200, 200]
        assert server.service._permits == 2


def test_a_request_beyond_its_deadline_answers_504_and_is_dropped(
    gated: GatedEncoder, pool: ThreadPoolExecutor
) -> None:
    with LocalServer(gated, request_timeout=0.3) as server:
        send = sender(server, pool)
        late, queued = hold(gated, send), send("queued behind it")
        assert [late.result().status_code, queued.result().status_code] == [504, 504]
        before = len(gated.batches)
        gated.gate.set()
        assert send("on time").result().status_code == 200
        assert gated.batches[before:] == [1, 1]  # what hung, then the last: the queued one was dropped


def test_a_client_that_leaves_takes_its_work_along(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, max_batch_tokens=512) as server:
        send = sender(server, pool)
        running = hold(gated, send)
        leaver = socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])))
        content = b'{"inputs": ["leaving soon"]}'
        leaver.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
        )
        wait_for(lambda: server.service._scheduler.queue_tokens > 0, what="queued")
        leaver.close()
        permits = server.service.settings.max_requests
        wait_for(lambda: server.service._permits == permits - 1, what="permit given back")
        before = len(gated.batches)
        gated.gate.set()
        assert running.result().status_code == 200
        assert send("after").result().status_code == 200
        assert gated.batches[before:] == [1, 1]
        assert 'l2v_requests_total{route="/embed",status="499"} 1.0' in server.client.get("/metrics").text


def test_a_hanging_engine_is_down_and_answers_what_waits(gated: GatedEncoder, pool: ThreadPoolExecutor) -> None:
    with LocalServer(gated, engine_timeout=2) as server:
        assert server.client.get("/health").status_code == 200
        gated.gate.clear()
        hung = sender(server, pool)("a")
        wait_for(lambda: server.client.get("/health").status_code == 503)
        assert server.client.get("/health").json() == {"status": "down"}
        assert server.client.get("/ready").status_code == 503
        assert server.client.post("/embed", json={"inputs": "a"}).json()["error"]["type"] == "unavailable"
        assert "l2v_engine_up 0.0" in server.client.get("/metrics").text
        refused = hung.result()
        assert (refused.status_code, "engine_timeout" in refused.json()["error"]["message"]) == (503, True)
        gated.gate.set()
        # It stays down: its process is about to end.
        assert server.client.get("/health").status_code == 503


def test_keys_open_the_api_and_nothing_else_does(encoder: Encoder) -> None:
    with LocalServer(encoder, api_keys="first-key, second-key") as server:
        for header in (None, "Bearer wrong", "Bearer first-ke", "first-key", "Basic first-key", "Bearer ключ"):
            headers = {} if header is None else {"Authorization": header.encode()}
            response = server.client.post("/embed", json={"inputs": "a"}, headers=headers)  # type: ignore[arg-type]
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.json()["error"]["param"] == "authorization"
        for key in ("first-key", "second-key"):
            headers = {"Authorization": f"Bearer {key}"}
            assert server.client.post("/embed", json={"inputs": "a"}, headers=headers).status_code == 200
        assert server.client.get("/info").status_code == 401
        for path in ("/health", "/ready", "/metrics", "/docs"):
            assert server.client.get(path).status_code == 200
        assert "key" not in server.client.get("/info", headers=headers).text


def test_a_key_may_be_of_any_script(encoder: Encoder) -> None:
    with LocalServer(encoder, api_keys="schlüssel") as server:
        headers = {"Authorization": "Bearer schlüssel".encode()}
        assert server.client.post("/embed", json={"inputs": "a"}, headers=headers).status_code == 200  # type: ignore[arg-type]


def test_a_body_that_does_not_arrive_is_given_up(encoder: Encoder) -> None:
    with LocalServer(encoder, request_timeout=0.3) as server:
        with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as slow:
            slow.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            slow.settimeout(10)
            assert slow.recv(100).startswith(b"HTTP/1.1 504")
        assert server.embed("and others are served")["tokens"]


def test_probes_may_ask_by_head(server: LocalServer) -> None:
    assert server.client.head("/health").status_code == server.client.head("/ready").status_code == 200


def test_a_bug_shows_its_request_id_and_nothing_else(
    gated: GatedEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object, inputs: object) -> None:
        raise KeyError("the secret text")

    with LocalServer(gated) as server:
        monkeypatch.setattr(GatedEncoder, "tokenize", broken)
        response = server.client.post("/embed", json={"inputs": "the secret text"})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (500, "internal")
    assert error["message"] == f"request {response.headers['X-Request-Id']}"
    assert "secret" not in response.text + caplog.text
    assert any(record.message == "bug" for record in caplog.records)


@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999999), ("bfloat16", 0.9999)])
def test_batch_mates_do_not_matter_under_load(adapter: Path, dtype: DType, least: float) -> None:
    texts = [f"text number {i} " + "and more " * (i * 5 % 40) for i in range(60)]
    with LocalServer(load(str(adapter), dtype=dtype)) as server:
        alone = {text: np.array(server.embed(text)["embeddings"][0]) for text in texts}
        with ThreadPoolExecutor(16) as pool:
            crowd = list(pool.map(lambda text: np.array(server.embed(text)["embeddings"][0]), texts * 4))
    assert min(float(vector @ alone[text]) for text, vector in zip(texts * 4, crowd, strict=True)) >= least
