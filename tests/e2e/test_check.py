"""`l2v check` as a process: what it finds of good models and bad ones, and that it and `l2v serve` refuse the same."""

import shutil
from pathlib import Path

import pytest

from models.published import DEMO
from tests.e2e.test_lifecycle import run


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The built-in model's folders, one bit of an adapter's numbers flipped."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "copy"))
    path = folder / "contrastive" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    return folder


def test_it_says_what_it_found_of_the_built_in_model() -> None:
    ended = run("check", L2V_DTYPE="float32")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
    assert found.keys() == {"model", "files", "weights", "adapters", "attention", "recorded vector", "known text"}
    assert found["model"] == "demo of base, mntp, contrastive, float32 on cpu"
    assert found["recorded vector"].startswith("the same, cosine 1.0000")
    assert "256 finite dimensions" in found["known text"]


def test_an_export_is_checked_against_what_it_recorded(tmp_path: Path) -> None:
    assert run("export", str(tmp_path / "merged")).returncode == 0
    ended = run("check", "--model", str(tmp_path / "merged"))
    assert ended.returncode == 0, ended.stderr
    assert "recorded vector: the same, cosine 1.0000" in ended.stdout
    assert str(tmp_path) not in ended.stdout


def test_a_model_without_record_is_said_to_have_none(base: Path, adapter: Path) -> None:
    ended = run("check", "--model", str(base), "--adapters", str(adapter))
    assert ended.returncode == 0, ended.stderr
    assert "files: no checksums are recorded of them" in ended.stdout
    assert "recorded vector: none" in ended.stdout
    assert "known text: 32 finite dimensions, of length 1, the same at the second time" in ended.stdout


def test_a_short_model_can_be_checked(base: Path) -> None:
    assert run("check", "--model", str(base), "--max-length", "8").returncode == 0


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_damaged_model_is_refused_by_both_with_the_same_reason(command: str, damaged: Path) -> None:
    flags = ["--model", str(damaged / "base"), "--adapters", f"{damaged / 'mntp'},{damaged / 'contrastive'}"]
    ended = run(command, *flags, L2V_PORT="0")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("l2v: adapter_model.safetensors of ")
    assert "not what was recorded of it" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_it_takes_the_settings_of_serve() -> None:
    ended = run("check", "--api-keys-file", "/no/file")
    assert (ended.returncode, "cannot be read" in ended.stderr) == (2, True)
