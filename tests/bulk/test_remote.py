"""Embedding through a service: the same vectors in order, even if requests fail in between."""

import base64
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.remote import RemoteEmbedder
from l2v.app.bulk.rows import Row
from l2v.models import Encoder, Input
from tests.bulk.shell import call, normalized, read, start, texts, write
from tests.serving import LocalServer, listening

TEXTS = texts(300)
ROWS = [{"text": text} for text in TEXTS]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


def test_a_service_returns_the_vectors_of_the_encoder(
    source: Path, server: LocalServer, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--url", server.url, "--batch-size", 16, "--concurrency", 6, "--instruction", "Find:", "--dimensions", 8]
    ended = call(capsys, "embed", source, tmp_path / "out.npy", *flags)
    assert ended.status == 0, ended.err
    vectors = encoder.encode([Input(text, "Find:") for text in TEXTS])[:, :8]
    np.testing.assert_allclose(read(tmp_path / "out.npy"), normalized(vectors), atol=1e-5)


def test_an_empty_instruction_means_none_locally_and_through_a_service(
    server: LocalServer, encoder: Encoder, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "a", "how": ""}, {"text": "a", "how": None}, {"text": "a"}, {"text": "a", "how": "Own:"}]
    source = write(tmp_path / "in.jsonl", rows)
    for default in ("Find:", ""):
        vectors = normalized(encoder.encode([Input("a", each) for each in ("", default, default, "Own:")]))
        for number, model in enumerate((["--url", server.url], ["--dtype", "float32", "--model", adapter])):
            out = tmp_path / f"{default[:4]}{number}.npy"
            flags = ["--instruction", default, "--instruction-column", "how"]
            ended = call(capsys, "embed", source, out, *model, *flags)
            assert ended.status == 0, ended.err
            np.testing.assert_allclose(read(out), vectors, atol=1e-5)


def test_requests_to_a_busy_service_are_retried(
    source: Path, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalServer(encoder, max_queue_tokens=1, max_requests=2) as busy:
        flags = ["--url", busy.url, "--batch-size", 60, "--concurrency", 5]
        ended = call(capsys, "embed", source, tmp_path / "out.npy", *flags)
        assert ended.status == 0, ended.err
        refused = [line for line in busy.client.get("/metrics").text.splitlines() if 'status="429"' in line]
    assert refused
    vectors = encoder.encode([Input(text) for text in TEXTS])
    np.testing.assert_allclose(read(tmp_path / "out.npy"), normalized(vectors), atol=1e-5)


def test_the_client_waits_for_a_service_that_is_not_up_yet(source: Path, encoder: Encoder, tmp_path: Path) -> None:
    later = LocalServer(encoder)
    with socket.create_server(("127.0.0.1", int(later.url.rpartition(":")[2]))) as early:
        process = start("embed", source, tmp_path / "out.npy", "--url", later.url)
        early.settimeout(60)
        early.accept()[0].close()
    with later:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert read(tmp_path / "out.npy").shape == (300, 32)


def test_rows_that_the_service_rejects_are_named(
    encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": "x" * (500 if i in (17, 18, 40) else 20)} for i in range(60)]
    source = write(tmp_path / "in.jsonl", rows)
    with LocalServer(encoder, max_characters=100) as strict:
        command = ["embed", source, tmp_path / "out.npy", "--url", strict.url, "--batch-size", 16]
        ended = call(capsys, *command)
        assert (ended.status, "row 18: text has 500 characters" in ended.err) == (1, True), ended.err
        assert call(capsys, *command, "--skip-bad", tmp_path / "bad.jsonl").status == 0
    bad = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [row["row"] for row in bad] == [18, 19, 41]
    assert read(tmp_path / "out.npy").shape == (57, 32)


def test_batches_that_are_too_large_are_divided(
    source: Path, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with LocalServer(encoder, max_inputs=10, max_body_bytes=600) as small:
        ended = call(capsys, "embed", source, tmp_path / "out.npy", "--url", small.url)
    assert ended.status == 0, ended.err
    vectors = encoder.encode([Input(text) for text in TEXTS])
    np.testing.assert_allclose(read(tmp_path / "out.npy"), normalized(vectors), atol=1e-5)


class Slow(BaseHTTPRequestHandler):
    """A service that times out beyond 20 rows, behind a proxy that rejects more than 60."""

    model: ClassVar[dict[str, object]] = {"model": "slow", "dimensions": 2}

    def do_GET(self) -> None:
        self._answer(200, self.model)

    def do_POST(self) -> None:
        count = len(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"])
        if count > 20:
            self._answer(413 if count > 60 else 504, None)
            return
        vector = base64.b64encode(np.array([1, 0], "<f4").tobytes()).decode()
        self._answer(200, self.model | {"embeddings": [vector] * count, "tokens": [1] * count})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode() if content else b"<html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_batches_that_take_too_long_are_divided(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with listening(Slow) as address:
        ended = call(capsys, "embed", source, tmp_path / "out.npy", "--url", address, "--retry-for", 1)
    assert ended.status == 0, ended.err
    assert read(tmp_path / "out.npy").shape == (300, 2)


def test_the_key_is_sent_and_never_shown(
    source: Path, encoder: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalServer(encoder, api_keys="sesame") as closed:
        command = ["embed", source, tmp_path / "out.npy", "--url", closed.url]
        ended = call(capsys, *command, "--api-key", "albatross")
        assert (ended.status, "requires a key" in ended.err, "albatross" in ended.err) == (1, True, False)
        monkeypatch.setenv("L2V_API_KEY", "sesame")
        assert call(capsys, *command).status == 0
        assert call(capsys, "info", "--url", closed.url).status == 0


def test_an_invalid_option_blames_no_row(
    source: Path, server: LocalServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, reason in (
        (["--dimensions", "99"], "(dimensions)"),
        (["--prompt-name", "nope"], "(prompt_name)"),
        (["--instruction", "x" * 600], "(instruction)"),
    ):
        ended = call(
            capsys, "embed", source, tmp_path / "out.npy", "--url", server.url, *flags, "--skip-bad", tmp_path / "bad"
        )
        assert (ended.status, reason in ended.err) == (1, True), ended.err
        (tmp_path / "bad").unlink()


def test_a_change_of_the_served_model_ends_the_run(server: LocalServer) -> None:
    """A service that restarts during a run may come back with another model."""
    with RemoteEmbedder(server.url, None, None, EmbedOptions(), concurrency=1, retry_for=1) as embedder:
        assert embedder.submit([Row(1, "a")]).result().vectors.shape == (1, 32)
        models = server.service.models
        base = models.find()
        models.open([replace(base, name="another")])
        with pytest.raises(CommandError, match="now serves a different model"):
            embedder.submit([Row(2, "b")]).result()
        models.open([base])


class Restarting(BaseHTTPRequestHandler):
    """A service that comes back with another pooling under the same name, after one 503."""

    pooling: ClassVar[str] = "mean"

    def do_GET(self) -> None:
        self._answer(200, {"model": "same", "dimensions": 1, "pooling": self.pooling})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.pooling == "mean":
            Restarting.pooling = "last_token"
            self._answer(503, {})
        else:
            row = base64.b64encode(np.ones(1, np.float32).tobytes()).decode()
            self._answer(200, {"model": "same", "dimensions": 1, "embeddings": [row], "tokens": [1]})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_restart_with_other_settings_ends_the_run() -> None:
    Restarting.pooling = "mean"
    with (
        listening(Restarting) as address,
        RemoteEmbedder(address, None, None, EmbedOptions(), concurrency=1, retry_for=30) as embedder,
        pytest.raises(CommandError, match=r"different model \(pooling\).* --overwrite"),
    ):
        embedder.submit([Row(1, "a")]).result()


class Other(BaseHTTPRequestHandler):
    """A service that is not l2v."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[str]:
    with listening(Other) as address:
        yield address


def test_a_service_that_is_not_l2v_is_recognized(
    source: Path, other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = call(capsys, "embed", source, tmp_path / "out.npy", "--url", other)
    assert (ended.status, "is not an l2v service: it returned 200" in ended.err) == (1, True), ended.err
