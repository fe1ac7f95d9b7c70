"""`l2v serve` in its own process: start, shutdown and logs."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from l2v.models import Input, load
from l2v.models.runtime import LIBRARIES, prepare_libraries
from tests.bulk.shell import call, normalized, run
from tests.docs.blocks import ROOT
from tests.serving import ServerProcess, wait_for


class Hub(BaseHTTPRequestHandler):
    """Responds like the Hub for gated and missing repositories; never responds for `slow/…`."""

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
    """The environment variables that point to this Hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    Hub.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


HUB_ERRORS = {
    "gated/model": "gated/model is gated: accept its licence on its Hub page, then set HF_TOKEN",
    "absent/model": "absent/model is not on the Hub, or it is private",
    "pinned/model@v9": "pinned/model has no revision v9",
}
LOADS = """
import sys
from l2v.models import ModelError, load
for name in sys.argv[1:]:
    try:
        load(name)
    except ModelError as error:
        print(error)
"""


def test_an_error_of_the_hub_is_one_sentence(endpoint: dict[str, str]) -> None:
    command = [sys.executable, "-c", LOADS, *HUB_ERRORS]
    printed = subprocess.check_output(command, text=True, cwd=ROOT, env=os.environ | endpoint)
    for line, reason in zip(printed.splitlines(), HUB_ERRORS.values(), strict=True):
        assert line.startswith(reason)


def test_the_port_is_open_while_the_model_loads(endpoint: dict[str, str]) -> None:
    """The Hub does not respond, so loading lasts until Ctrl-C, which ends the process at once."""
    with ServerProcess("--model", "slow/model", **endpoint) as server:
        server.wait_open()
        ready = server.client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
        assert server.client.get("/health").status_code == 200
        response = server.client.post("/embed", json={"inputs": "a"})
        assert (response.status_code, response.json()["error"]["message"]) == (503, "the model is loading")
        assert server.client.get("/info").status_code == 503
        assert server.client.get("/metrics").status_code == 200
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(10) == 0
        assert "Traceback" not in server.log


def test_sigterm_ends_it_before_the_port_is_open() -> None:
    """The first process of a container does not receive a signal without a handler."""
    with ServerProcess() as server:
        status = Path(f"/proc/{server.process.pid}/status")

        def handles_sigterm() -> bool:
            caught = re.search(r"^SigCgt:\t(\w+)$", status.read_text(), re.MULTILINE)
            return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)

        wait_for(handles_sigterm, what="a handler")
        assert not server.is_open()
        assert server.terminate() == 0


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["tokenize", "a text"]])
def test_a_failed_load_ends_the_process_with_one_sentence(command: list[str]) -> None:
    """OpenMP prints its settings when torch loads it: its threads must not spin."""
    ended = run(*command, "--model", "./nowhere", OMP_DISPLAY_ENV="true")
    assert ended.status == 1
    assert ended.err.splitlines()[-1].startswith("l2v: ./nowhere is not a local folder, a published short name")
    assert "Traceback" not in ended.err
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in ended.err


def test_the_environment_overrides_our_defaults_for_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LIBRARIES:
        monkeypatch.setenv(name, "mine")
    prepare_libraries()
    assert {os.environ[name] for name in LIBRARIES} == {"mine"}


@pytest.mark.parametrize(
    ("arguments", "environment", "reason"),
    [
        (["--port", "eighty"], {}, "--port (L2V_PORT): "),
        ([], {"L2V_PORT": "70000"}, "--port (L2V_PORT): "),
        (["--dtype", "float8"], {}, "dtype"),
        (["--pooling", "max"], {}, "pooling"),
        ([], {"L2V_API_KEYS": ","}, "contains no key"),
        (["--prompts", "/no/file.json"], {}, "cannot be read"),
        (["--colour", "red"], {}, "--colour"),
    ],
)
def test_an_invalid_setting_is_named(
    arguments: list[str],
    environment: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = call(capsys, "serve", *arguments)
    assert ended.status == 2
    assert reason in ended.err


def test_a_port_in_use_is_named(demo: ServerProcess) -> None:
    """Before anything else, as the model, which there is not, shows."""
    ended = run("serve", "--port", demo.port, "--model", "./nowhere")
    assert ended.status == 1
    assert ended.err.startswith(f"l2v: cannot listen on 127.0.0.1:{demo.port} (Address already in use): end the ")
    assert len(ended.err.splitlines()) == 1


def test_help_lists_the_subcommands() -> None:
    ended = run("--help")
    assert ended.status == 0
    assert "serve" in ended.out
    assert "export" in ended.out


def test_an_endless_upload_does_not_delay_ctrl_c() -> None:
    with ServerProcess("--drain-timeout", "1") as server:
        server.wait_ready()
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            time.sleep(0.2)
            started = time.monotonic()
            server.process.send_signal(signal.SIGINT)
            assert server.process.wait(60) == 0
            assert time.monotonic() - started < 8
            assert slow.recv(1000).startswith(b"HTTP/1.1 503")
        assert "Traceback" not in server.log


def test_logs_are_json_lines_without_texts_and_flags_override_the_environment() -> None:
    flags = ["--log-level", "debug", "--pooling", "last_token"]
    environment = {"L2V_POOLING": "mean", "L2V_MAX_LENGTH": "64", "L2V_DTYPE": "float32", "L2V_API_KEYS": "sesame"}
    with ServerProcess(*flags, **environment) as server:
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
        info = server.client.get("/info", headers=headers).json()
        assert (info["pooling"], info["max_length"], info["dtype"]) == ("last_token", 64, "float32")


def test_it_starts_without_warnings(demo: ServerProcess) -> None:
    lines = demo.log_lines
    ready = next(i for i, line in enumerate(lines) if line["message"] == "ready")
    assert not [line for line in lines[: ready + 1] if line["level"] not in ("info", "debug")]


def test_export_serves_with_the_same_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["the cat sits on the mat", "stocks fell sharply"]
    out = tmp_path / "merged"
    ended = call(capsys, "export", "--dtype", "float32", out)
    assert ended.status == 0, ended.err
    assert str(out) in ended.out
    # The folder is checked before the model is loaded.
    again = call(capsys, "export", "--model", "./nowhere", out)
    assert (again.status, "already exists" in again.err) == (1, True)
    moved = shutil.move(out, tmp_path / "renamed")
    with ServerProcess("--dtype", "float32", "--model", str(moved)) as server:
        server.wait_ready()
        content = server.client.post("/embed", json={"inputs": texts}).json()
        assert content["model"] == "renamed"
        assert len(server.client.get("/info").json()["sources"]) == 3
    vectors = load("demo", dtype="float32").encode([Input(text) for text in texts])
    np.testing.assert_allclose(content["embeddings"], normalized(vectors), atol=1e-6)


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
        content = similarity(demo, body)
        assert content["results"][0][0]["index"] in best, query


def similarity(server: ServerProcess, body: dict[str, object]) -> dict[str, list[list[dict[str, float]]]]:
    response = server.client.post("/similarity", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, list[list[dict[str, float]]]] = response.json()
    return content
