"""Runs that cannot work end with one sentence and leave nothing behind."""

import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from l2v.models import Encoder, Input
from tests.bulk.shell import call, normalized, read, start, texts, write

MODEL = ("--dtype", "float32", "--model")
# What is refused with it is refused before a model is loaded.
NOWHERE = ["--model", "./nowhere"]
ROWS = [{"id": i, "text": text} for i, text in enumerate(texts(8))]


@pytest.mark.parametrize(
    ("source", "target", "flags", "status", "reason"),
    [
        ("none.txt", "o.npy", [], 1, "cannot read"),
        ("in.csv", "nowhere/o.npy", [], 1, "cannot write"),
        ("in.csv", "o.npy", ["--column", "body", *NOWHERE], 1, "has no column 'body'; it has id, text"),
        ("in.parquet", "o.npy", ["--column", "body", *NOWHERE], 1, "has no column 'body'; it has id, text"),
        ("in.jsonl", "o.npy", ["--column", "body", *NOWHERE], 1, "row 1: has no field 'body'"),
        ("in.jsonl", "o.npy", ["--format", "parquet"], 1, "is not a complete Parquet file"),
        ("in.txt", "o.npy", ["--model", "./nowhere"], 1, "./nowhere is not a local folder"),
        ("in.txt", "taken.npy", NOWHERE, 1, "already exists"),
        ("in.txt", "folder.npy", [], 1, "it is a folder"),
        ("in.txt", "o.npy", ["--dimensions", "99"], 2, "--dimensions: must be at most 32"),
        ("in.txt", "o.npy", ["--dimensions", "0"], 2, "--dimensions (L2V_DIMENSIONS)"),
        ("in.txt", "o.xyz", [], 2, "--output-format"),
        ("in.csv", "o.npy", ["--keep", "id"], 2, "--keep: .npy files hold only vectors"),
        ("in.csv", "o.jsonl", ["--keep", "embedding"], 2, "--keep"),
        ("in.txt", "o.jsonl", ["--keep", "id"], 2, "--keep: a text file has no columns"),
        ("in.csv", "o.jsonl", ["--keep", "id,id"], 2, "--keep: names a column twice"),
        ("in.txt", "o.npy", ["--prompt-name", "query"], 2, "the model has no prompt query"),
        ("in.txt", "o.npy", ["--skip-bad", "{}/o.npy"], 2, "must be different files"),
        ("in.txt", "o.npy", ["--skip-bad", "{}/taken.npy"], 1, "already exists"),
        ("in.txt", "o.npy", ["--url", "localhost:8080"], 1, "must be the address of a service"),
        ("in.txt", "o.npy", ["--url", "http://127.0.0.1:9", "--retry-for", "0.2"], 1, "cannot be reached"),
        ("-", "o.npy", ["--format", "parquet"], 2, "standard input cannot be Parquet"),
        ("in.txt", "-", ["--output-format", "npy"], 2, "standard output can only be jsonl"),
    ],
)
def test_refusals(
    source: str,
    target: str,
    flags: list[str],
    status: int,
    reason: str,
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("in.txt", "in.csv", "in.jsonl", "in.parquet"):
        write(tmp_path / name, ROWS)
    (tmp_path / "taken.npy").write_bytes(b"mine")
    (tmp_path / "folder.npy").mkdir()
    before = sorted(tmp_path.iterdir())
    names = [name if name == "-" else tmp_path / name for name in (source, target)]
    ended = call(capsys, "embed", *names, *MODEL, adapter, *(flag.format(tmp_path) for flag in flags))
    assert (ended.status, reason in ended.err) == (status, True), ended.err
    (line,) = [line for line in ended.err.splitlines() if line != "Usage: l2v embed [flags] INPUT OUTPUT"]
    assert line.startswith("l2v: ")
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "taken.npy").read_bytes() == b"mine"


def test_a_full_disk_is_reported_and_the_run_can_be_resumed(
    encoder: Encoder, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A limit on file sizes simulates the full disk."""
    some = texts(2000)
    (tmp_path / "in.txt").write_text("\n".join(some))
    command = ["embed", tmp_path / "in.txt", tmp_path / "o.npy", *MODEL, adapter]
    process = start(*command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1)))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot write" in err.decode()
    assert "File too large" in err.decode()
    assert not (tmp_path / "o.npy").exists()
    assert call(capsys, *command).status == 0
    vectors = encoder.encode([Input(text) for text in some])
    np.testing.assert_allclose(read(tmp_path / "o.npy"), normalized(vectors), atol=1e-5)


def test_overwrite_replaces_the_output_when_the_new_one_is_complete(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.npy"
    out.write_bytes(b"old")
    (tmp_path / "in.txt").write_text("a\n\n")
    command = ["embed", tmp_path / "in.txt", out, *MODEL, adapter, "--overwrite"]
    assert call(capsys, *command).status == 1
    assert out.read_bytes() == b"old"
    assert call(capsys, *command, "--skip-bad", tmp_path / "bad").status == 0
    assert out.read_bytes().startswith(b"\x93NUMPY")


@pytest.mark.parametrize("flags", [["--dimensions", "99"], ["--prompt-name", "query"]])
def test_what_the_model_lacks_is_refused_before_its_weights_are_read(
    flags: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(base, model)
    for weights in model.glob("*.safetensors"):
        weights.write_bytes(b"no weights")
    write(tmp_path / "in.txt", ROWS)
    done = call(capsys, "embed", tmp_path / "in.txt", tmp_path / "o.npy", *MODEL, model, *flags)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert done.err.startswith(f"l2v: {flags[0]}: ")
