"""`l2v serve` in a process of its own: from the open port to the last answer after SIGTERM, and what it logs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.serving import ServerProcess, stop_under_load, wait_for

L2V = str(Path(sys.executable).with_name("l2v"))


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [L2V, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        cwd=tempfile.gettempdir(),
    )


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for repositories that are gated or absent; keeps the asker of `slow/…` waiting."""

    release = threading.Event()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        code = {"gated": "GatedRepo", "absent": "RepoNotFound", "pinned": "RevisionNotFound"}
        kind = next((kind for kind in code if f"/{kind}/" in self.path), None)
        if kind is None:
            self.release.wait(60)
        self.send_response({"gated": 403}.get(kind or "", 404))
        self.send_header("X-Error-Code", code.get(kind or "", ""))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def endpoint() -> Iterator[dict[str, str]]:
    """The environment that leads to such a Hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    Hub.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("gated/model", "gated/model is gated: accept its licence on its Hub page, then set HF_TOKEN"),
        ("absent/model", "absent/model is not on the Hub, or it is private"),
        ("pinned/model@v9", "pinned/model has no revision v9"),
    ],
)
def test_a_refusal_of_the_hub_is_told_in_one_sentence(model: str, reason: str, endpoint: dict[str, str]) -> None:
    ended = run("serve", "--port", "0", "--model", model, **endpoint)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"l2v: {reason}")


def test_the_port_is_open_while_the_model_loads(endpoint: dict[str, str]) -> None:
    """The Hub does not answer, so loading lasts until the process is told to stop."""
    with ServerProcess("--model", "slow/model", **endpoint) as server:
        server.wait_open()
        ready = server.client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
        assert server.client.get("/health").status_code == 200
        refused = server.client.post("/embed", json={"inputs": "a"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (503, "the model is loading")
        assert server.client.get("/info").status_code == 503
        assert server.client.get("/metrics").status_code == 200
        assert server.terminate() == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--model", "./nowhere"], "neither a folder here nor a published short name nor a Hub id"),
        (["--model", "someone/gated"], "not in the local Hub cache"),
        (["--adapters", "/no/adapter"], "neither a folder here"),
        (["--device", "cuda:7"], "cannot be put on device cuda:7"),
        (["--device", "abacus"], "device abacus is none that torch knows"),
    ],
)
def test_a_model_that_cannot_be_loaded_ends_the_process_with_one_sentence(arguments: list[str], reason: str) -> None:
    ended = run("serve", "--port", "0", *arguments)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("l2v: ")
    assert reason in last
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["tokenize", "a text"]])
def test_the_threads_of_openmp_do_not_spin(command: list[str]) -> None:
    """As OpenMP itself says when torch brings it in."""
    for environment, policy in ({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"):
        ended = run(*command, "--model", "./nowhere", OMP_DISPLAY_ENV="true", **environment)
        assert f"OMP_WAIT_POLICY = '{policy}'" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--port", "eighty"], {}, "--port (L2V_PORT): "),
        ([], {"L2V_PORT": "70000"}, "--port (L2V_PORT): "),
        (["--dtype", "float8"], {}, "dtype"),
        (["--pooling", "max"], {}, "pooling"),
        ([], {"L2V_API_KEYS": ","}, "holds no key"),
        (["--prompts", "/no/file.json"], {}, "cannot be read"),
        (["--colour", "red"], {}, "--colour"),
    ],
)
def test_a_wrong_setting_is_named(arguments: list[str], environment: dict[str, str], reason: str) -> None:
    ended = run("serve", *arguments, **environment)
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_taken_port_is_named(demo: ServerProcess) -> None:
    ended = run("serve", "--port", str(demo.port))
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"l2v: cannot listen on 127.0.0.1:{demo.port}")


def test_the_command_alone_says_what_it_can() -> None:
    ended = run("--help")
    assert ended.returncode == 0
    assert "serve" in ended.stdout
    assert "export" in ended.stdout


def test_nothing_accepted_is_lost_at_sigterm() -> None:
    with ServerProcess() as server:
        server.wait_ready()
        stop_under_load(server)


def test_an_upload_that_never_ends_does_not_hold_it_up() -> None:
    with ServerProcess("--drain-timeout", "1") as server:
        server.wait_ready()
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            time.sleep(0.2)
            started = time.monotonic()
            assert server.terminate() == 0
            assert time.monotonic() - started < 8
            assert slow.recv(1000).startswith(b"HTTP/1.1 503")
        assert "Traceback" not in server.log


def test_ctrl_c_while_loading_ends_it_at_once(endpoint: dict[str, str]) -> None:
    with ServerProcess("--model", "slow/model", **endpoint) as server:
        server.wait_open()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log


def test_interrupt_stops_it_too(demo: ServerProcess) -> None:
    with ServerProcess() as server:
        server.wait_ready()
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(30) == 0


def test_logs_are_json_lines_without_any_text() -> None:
    with ServerProcess("--log-level", "debug", L2V_API_KEYS="sesame") as server:
        server.wait_ready()
        headers = {"Authorization": "Bearer sesame", "X-Request-Id": "given-id"}
        server.client.post("/embed", json={"inputs": "swordfish", "instruction": "albatross"}, headers=headers)
        server.client.post("/embed", json={"inputs": [{"text": "", "swordfish": "albatross"}]}, headers=headers)
        server.client.post("/embed", content=b"swordfish", headers=headers | {"Content-Type": "application/json"})
        server.client.post("/embed?q=swordfish", json={"inputs": "a"}, headers={"Authorization": "Bearer albatross"})
        server.client.get("/swordfish")
        upgrade = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "x",
            "Sec-WebSocket-Version": "13",
        }
        server.client.get("/embed?q=swordfish", headers=headers | upgrade)
        wait_for(lambda: server.log.count('"status": 4') >= 4)
        lines = server.log_lines
        assert all({"level", "message", "timestamp"} <= line.keys() for line in lines)
        line = next(line for line in lines if line.get("request_id") == "given-id")
        assert (line["route"], line["status"]) == ("/embed", 200)
        assert {"ms", "tokenize_ms", "queue_ms", "forward_ms"} <= line.keys()
        for secret in ("swordfish", "albatross", "sesame"):
            assert secret not in server.log
            assert secret not in server.client.get("/metrics").text


def test_it_warns_of_nothing_at_start(demo: ServerProcess) -> None:
    """What a newcomer reads first is calm."""
    lines = demo.log_lines
    ready = next(i for i, line in enumerate(lines) if line["message"] == "ready")
    assert not [line for line in lines[: ready + 1] if line["level"] not in ("info", "debug")]


def test_flags_beat_the_environment() -> None:
    with ServerProcess(
        "--pooling", "last_token", L2V_POOLING="mean", L2V_MAX_LENGTH="64", L2V_DTYPE="float32"
    ) as server:
        server.wait_ready()
        info = server.client.get("/info").json()
        assert (info["pooling"], info["max_length"], info["dtype"]) == ("last_token", 64, "float32")


def test_export_serves_with_the_same_embeddings(tmp_path: Path) -> None:
    texts = ["the cat sits on the mat", "stocks fell sharply"]
    out = tmp_path / "merged"
    ended = run("export", "--dtype", "float32", str(out))
    assert ended.returncode == 0, ended.stderr
    assert str(out) in ended.stdout
    again = run("export", str(out))
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    moved = shutil.move(out, tmp_path / "renamed")
    vectors = []
    for flags in (["--model", str(moved)], []):
        with ServerProcess("--dtype", "float32", *flags) as server:
            server.wait_ready()
            content = server.client.post("/embed", json={"inputs": texts}).json()
            vectors.append(np.array(content["embeddings"]))
            if flags:
                assert content["model"] == "renamed"
                assert len(json.loads(server.client.get("/info").text)["sources"]) == 3
    np.testing.assert_allclose(*vectors, atol=1e-6)


def test_the_built_in_model_ranks_sensibly(demo: ServerProcess) -> None:
    documents = [
        "the cat sits on the mat",
        "a cat is sitting on a rug",
        "stock markets fell sharply today",
        "open a file and read its lines",
    ]
    for query, best in (
        ("a cat sitting on a mat", {0, 1}),
        ("shares lost value on the stock market", {2}),
        ("how to read lines from a file", {3}),
    ):
        body = {"queries": query, "documents": documents, "top_k": 1}
        answer = server_answer(demo, body)
        assert answer["results"][0][0]["index"] in best, query


def server_answer(server: ServerProcess, body: dict[str, object]) -> dict[str, list[list[dict[str, float]]]]:
    response = server.client.post("/similarity", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, list[list[dict[str, float]]]] = response.json()
    return content
