"""An interrupted run, however it ended, is resumed without losing or repeating rows."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.bulk.shell import call, start, texts, write
from tests.serving import wait_for

MODEL = ("--dtype", "float32", "--model")
COUNT = 6_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes some seconds to embed, with one bad row in a thousand."""
    rows = [{"id": i, "text": text if i % 1000 != 500 else " "} for i, text in enumerate(texts(COUNT, 24))]
    return write(tmp_path_factory.mktemp("source") / "in.jsonl", rows)


def command(source: Path, out: Path, adapter: Path) -> list[object]:
    keep = [] if out.suffix == ".npy" else ["--keep", "id"]
    aside = bad_file(out)
    return ["embed", source, out, *MODEL, adapter, "--batch-size", 64, "--skip-bad", aside, *keep]


def bad_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.bad")


def rows_done(out: Path) -> int:
    journal = out.with_name(f"{out.name}.partial") / "journal.json"
    try:
        done: int = json.loads(journal.read_bytes())["progress"]["rows"]
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return done


def start_and_wait_for_rows(arguments: list[object], out: Path) -> "subprocess.Popen[bytes]":
    before = rows_done(out)
    process = start(*arguments)
    wait_for(lambda: rows_done(out) > before or process.poll() is not None, 60, "a commit")
    return process


@pytest.mark.parametrize(
    ("name", "times"),
    [("out.parquet", 2), *(pytest.param(name, 1, marks=pytest.mark.long) for name in ("out.jsonl", "out.npy"))],
)
def test_a_run_survives_repeated_kills(
    name: str, times: int, source: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, out = tmp_path / "whole" / name, tmp_path / "cut" / name
    arguments = command(source, out, adapter)
    pause = random.Random(name)
    kills = 0
    for _ in range(times):
        process = start_and_wait_for_rows(arguments, out)
        time.sleep(pause.uniform(0, 0.5))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert kills == times
    assert 0 < rows_done(out) < COUNT
    assert not out.exists()
    ended = call(capsys, *arguments)
    assert ended.status == 0, ended.err
    assert "resuming after row" in ended.err
    assert call(capsys, *command(source, whole, adapter)).status == 0
    assert out.read_bytes() == whole.read_bytes()
    assert bad_file(out).read_bytes() == bad_file(whole).read_bytes()
    assert sorted(path.name for path in out.parent.iterdir()) == sorted([name, bad_file(out).name])


def test_a_second_run_is_refused_and_an_interrupted_one_resumes(
    source: Path, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Together, the output and the file of bad rows hold every row once."""
    out = tmp_path / "out.jsonl"
    arguments = command(source, out, adapter)
    process = start_and_wait_for_rows(arguments, out)
    process.send_signal(signal.SIGSTOP)
    other = call(capsys, *arguments)
    assert (other.status, f"another run is writing {out}" in other.err) == (1, True)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == "l2v: interrupted; run the same command to resume"
    assert call(capsys, *arguments).status == 0
    kept = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    bad = [json.loads(line)["row"] - 1 for line in bad_file(out).read_text().splitlines()]
    assert sorted(kept + bad) == list(range(COUNT))
    assert len(bad) == COUNT // 1000


def test_ctrl_c_while_waiting_for_input(adapter: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process = start("embed", "-", "-", *MODEL, adapter, "--batch-size", 1, stdin=reading, stdout=subprocess.PIPE)
    for _ in range(4):
        os.write(writing, b"a text\n")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b'{"embedding":')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    os.close(reading)
    os.close(writing)
    assert process.returncode == 130


def cut_off(capsys: pytest.CaptureFixture[str], *arguments: object, stdin: bytes = b"") -> None:
    """A run that does part of the work and ends without publishing it, as after a crash."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("l2v.app.bulk.sinks.FileSink.finish", lambda self: self.commit())
        patch.setattr("l2v.app.bulk.partial.Partial.publish", lambda *_: None)
        assert call(capsys, *arguments, stdin=stdin).status == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["--no-normalize"], "differs in options (normalize)"),
        (["--instruction", "Find:"], "differs in options (instruction)"),
        (["--pooling", "last_token"], "differs in model (pooling)"),
        (["--skip-bad", "{}/other"], "the run to resume writes bad rows to"),
        (None, "differs in input (bytes, modified"),
    ],
)
def test_a_run_with_other_settings_does_not_resume(
    change: list[str] | None, reason: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good, bad = [{"text": text} for text in texts(8)], {"text": 7}
    write(path, [bad, *good, {"text": "b", "how": "long " * 300}])
    arguments = ["embed", path, out, *MODEL, adapter, "--batch-size", 4, "--keep", "text"]
    aside = ["--skip-bad", tmp_path / "bad"]
    cut_off(capsys, *arguments, *aside)
    left = (out.with_name("out.jsonl.partial") / "journal.json").read_bytes()
    if change is None:
        with path.open("a") as file:
            file.write('{"text":"one more"}\n')
    else:
        arguments += [flag.format(tmp_path) for flag in change]
    again = arguments if change and "--skip-bad" in change else [*arguments, *aside]
    ended = call(capsys, *again)
    assert (ended.status, reason in ended.err) == (1, True), ended.err
    assert (out.with_name("out.jsonl.partial") / "journal.json").read_bytes() == left


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_killed_between_publishing_the_output_and_removing_the_folder(
    name: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path / "in.txt", [{"text": text} for text in texts(8)]), tmp_path / name
    arguments = ["embed", path, out, *MODEL, adapter]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("l2v.app.bulk.partial.shutil.rmtree", lambda *_, **__: None)
        assert call(capsys, *arguments).status == 0
    whole = out.read_bytes()
    assert out.with_name(f"{name}.partial").exists()
    again = call(capsys, *arguments)
    assert (again.status, "already exists" in again.err) == (1, True)
    assert call(capsys, *arguments, "--overwrite").status == 0
    assert out.read_bytes() == whole
    assert not out.with_name(f"{name}.partial").exists()


def test_a_damaged_journal_is_named(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path / "in.txt", [{"text": "a"}]), tmp_path / "out.npy"
    (folder := tmp_path / "out.npy.partial").mkdir()
    (folder / "journal.json").write_text("{")
    ended = call(capsys, "embed", path, out, *MODEL, adapter)
    assert (ended.status, f"delete {folder} to start over" in ended.err) == (1, True)
    assert (folder / "journal.json").exists()


def test_a_run_from_standard_input_starts_over(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard input cannot be read twice, so a run does not resume."""
    out = tmp_path / "out.npy"
    arguments = ["embed", "-", out, *MODEL, adapter, "--batch-size", 1]
    assert call(capsys, *arguments, stdin=b"a\nb\n\nc\n").status == 1
    assert rows_done(out) == 2
    assert call(capsys, *arguments, stdin=b"c\nd\n").status == 0
    assert np.load(out).shape == (2, 32)


def test_a_run_from_standard_input_with_bad_rows_starts_over(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bad = tmp_path / "out.npy", tmp_path / "bad.jsonl"
    arguments = ["embed", "-", out, *MODEL, adapter, "--batch-size", 1, "--format", "jsonl", "--skip-bad", bad]
    cut_off(capsys, *arguments, stdin=b'{"text": ""}\n' + b'{"text": "a"}\n' * 3)
    assert bad.exists()
    ended = call(capsys, *arguments, stdin=b'{"text": ""}\n{"text": "d"}\n')
    assert ended.status == 0, ended.err
    assert len(bad.read_text().splitlines()) == 1


def test_a_run_from_standard_input_keeps_the_work_of_another_run(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path / "in.txt", [{"text": text} for text in texts(8)]), tmp_path / "out.npy"
    cut_off(capsys, "embed", path, out, *MODEL, adapter)
    ended = call(capsys, "embed", "-", out, *MODEL, adapter, stdin=b"a\n")
    assert (ended.status, "differs in input" in ended.err) == (1, True), ended.err
    assert rows_done(out) == 8
