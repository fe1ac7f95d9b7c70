"""A run that ends before its time, by whatever means, is continued without loss or repeats."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.bulk.shell import call, read, run, start, texts, write
from tests.serving import wait_for

MODEL = ("--dtype", "float32", "--model")
COUNT = 6_000


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough work for some seconds, one row in a thousand bad."""
    rows = [{"id": i, "text": text if i % 1000 != 500 else " "} for i, text in enumerate(texts(COUNT, 24))]
    return write(tmp_path_factory.mktemp("source") / "in.jsonl", rows)


@pytest.fixture(scope="module")
def whole(source: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of outputs of runs that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("out.parquet", "out.jsonl", "out.npy"):
        ended = run(*command(source, folder / name, adapter))
        assert ended.status == 0, ended.err
    return folder


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


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.npy"])
def test_killed_again_and_again(name: str, source: Path, whole: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    arguments = command(source, out, adapter)
    pause = random.Random(name)
    kills = 0
    for _ in range(2):
        process = start_and_wait_for_rows(arguments, out)
        time.sleep(pause.uniform(0, 0.5))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.stderr.close()
    assert kills == 2
    assert 0 < rows_done(out) < COUNT
    assert not out.exists()
    ended = run(*arguments)
    assert ended.status == 0, ended.err
    assert "resuming after row" in ended.err
    assert out.read_bytes() == (whole / name).read_bytes()
    assert bad_file(out).read_bytes() == bad_file(whole / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, bad_file(out).name])


def test_what_was_kept_and_what_was_not_are_all_rows_once(whole: Path) -> None:
    kept = [json.loads(line)["id"] for line in (whole / "out.jsonl").read_text().splitlines()]
    bad = [json.loads(line)["row"] - 1 for line in bad_file(whole / "out.jsonl").read_text().splitlines()]
    assert sorted(kept + bad) == list(range(COUNT))
    assert len(bad) == COUNT // 1000


def test_interrupted(source: Path, whole: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    arguments = command(source, out, adapter)
    process = start_and_wait_for_rows(arguments, out)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == "l2v: interrupted; the same command goes on from there"
    assert run(*arguments).status == 0
    assert out.read_bytes() == (whole / "out.npy").read_bytes()


def test_interrupted_while_waiting_for_input(adapter: Path, tmp_path: Path) -> None:
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


def test_two_runs_on_one_output(source: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    arguments = command(source, out, adapter)
    first = start_and_wait_for_rows(arguments, out)
    first.send_signal(signal.SIGSTOP)
    second = run(*arguments)
    first.send_signal(signal.SIGCONT)
    assert (second.status, f"another run is writing {out}" in second.err) == (1, True)
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert read(out).shape == (COUNT - COUNT // 1000, 32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["--no-normalize"], "begun with another options (normalize)"),
        (["--instruction", "Find:"], "begun with another options (instruction)"),
        (["--pooling", "last_token"], "begun with another model (pooling)"),
        (["--skip-bad", "{}/other"], "the run to resume has set bad rows aside in"),
        (None, "begun with another input (bytes, modified"),
    ],
)
def test_another_job_is_not_continued(
    change: list[str] | None, reason: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    good, bad = [{"text": text} for text in texts(8)], {"text": 7}
    write(path, [bad, *good, {"text": "b", "how": "long " * 300}])
    arguments = ["embed", path, out, *MODEL, adapter, "--batch-size", 4, "--keep", "text"]
    aside = ["--skip-bad", tmp_path / "bad"]
    # The first run ends as a crash would, with a part done.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.bulk.sinks.FileSink.finish", lambda self: self.commit())
        patch.setattr("app.bulk.partial.Partial.publish", lambda *_: None)
        assert call(capsys, *arguments, *aside).status == 0
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
def test_killed_between_the_outputs_appearance_and_the_folders_end(
    name: str, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(tmp_path / "in.txt", [{"text": text} for text in texts(8)]), tmp_path / name
    arguments = ["embed", path, out, *MODEL, adapter]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.bulk.partial.shutil.rmtree", lambda *_, **__: None)
        assert call(capsys, *arguments).status == 0
    whole = out.read_bytes()
    assert out.with_name(f"{name}.partial").exists()
    again = call(capsys, *arguments)
    assert (again.status, "exists already" in again.err) == (1, True)
    assert call(capsys, *arguments, "--overwrite").status == 0
    assert out.read_bytes() == whole
    assert not out.with_name(f"{name}.partial").exists()


def test_a_damaged_journal_is_named(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = write(tmp_path / "in.txt", [{"text": "a"}]), tmp_path / "out.npy"
    (folder := tmp_path / "out.npy.partial").mkdir()
    (folder / "journal.json").write_text("{")
    ended = call(capsys, "embed", path, out, *MODEL, adapter)
    assert (ended.status, f"delete {folder} to begin anew" in ended.err) == (1, True)
    assert (folder / "journal.json").exists()


def test_standard_input_begins_anew(adapter: Path, tmp_path: Path) -> None:
    """It cannot be read twice, so nothing of an earlier run counts."""
    out = tmp_path / "out.npy"
    arguments = ["embed", "-", out, *MODEL, adapter, "--batch-size", 1]
    assert run(*arguments, stdin=b"a\nb\n\nc\n").status == 1
    assert rows_done(out) == 2
    assert run(*arguments, stdin=b"c\nd\n").status == 0
    assert np.load(out).shape == (2, 32)


def test_standard_input_with_bad_rows_begins_anew(adapter: Path, tmp_path: Path) -> None:
    out, bad = tmp_path / "out.npy", tmp_path / "bad.jsonl"
    arguments = ["embed", "-", out, *MODEL, adapter, "--batch-size", 1, "--format", "jsonl", "--skip-bad", bad]
    process = start(*arguments, stdin=subprocess.PIPE)
    process.stdin.write(b'{"text": ""}\n' + b'{"text": "a"}\n' * 3)
    process.stdin.flush()
    wait_for(bad.exists, 120)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert bad.exists()
    ended = run(*arguments, stdin=b'{"text": ""}\n{"text": "d"}\n')
    assert ended.status == 0, ended.err
    assert len(bad.read_text().splitlines()) == 1


def test_standard_input_leaves_anothers_work_alone(source: Path, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    process = start_and_wait_for_rows(command(source, out, adapter), out)
    process.kill()
    process.communicate()
    before = rows_done(out)
    ended = run("embed", "-", out, *MODEL, adapter, stdin=b"a\n")
    assert (ended.status, "was begun with another input" in ended.err) == (1, True), ended.err
    assert rows_done(out) == before
