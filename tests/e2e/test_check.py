"""`l2v check`: its report on good and bad models; `l2v serve` rejects the same models."""

import shutil
from pathlib import Path

import pytest

from l2v.models.published import DEMO
from tests.bulk.shell import call, run


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A copy of the built-in model with one bit of an adapter's weights flipped."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "copy"))
    path = folder / "contrastive" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    return folder


def test_it_reports_on_the_built_in_model(capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "check", "--dtype", "float32")
    assert (ended.status, ended.err) == (0, "")
    found = dict(line.split(": ", 1) for line in ended.out.splitlines())
    assert found.keys() == {"model", "files", "weights", "adapters", "attention", "reference vector", "repeatability"}
    assert found["model"] == "demo of base, mntp, contrastive, float32 on cpu"
    assert found["reference vector"].startswith("reproduced, cosine 1.0000")
    assert "256 finite dimensions" in found["repeatability"]


def test_an_export_is_checked_against_its_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "export", tmp_path / "merged").status == 0
    ended = call(capsys, "check", "--model", tmp_path / "merged")
    assert ended.status == 0, ended.err
    assert "reference vector: reproduced, cosine 1.0000" in ended.out
    assert str(tmp_path) not in ended.out


def test_the_report_states_that_a_model_has_no_record(
    base: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = call(capsys, "check", "--model", base, "--adapters", adapter)
    assert ended.status == 0, ended.err
    assert "files: no checksums recorded" in ended.out
    assert "reference vector: none recorded" in ended.out
    assert "repeatability: a text embedded twice gives the same vector (32 finite dimensions, length 1)" in ended.out


def test_a_model_with_a_small_max_length_can_be_checked(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "check", "--model", base, "--max-length", 8).status == 0


def test_check_and_serve_reject_a_damaged_model_with_the_same_message(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--model", damaged / "base", "--adapters", f"{damaged / 'mntp'},{damaged / 'contrastive'}"]
    ended = call(capsys, "check", *flags)
    assert ended.status == 1
    assert ended.err.startswith("l2v: adapter_model.safetensors of ")
    assert "does not match its checksum" in ended.err
    served = run("serve", "--port", 0, *flags)
    assert served.status == 1
    assert served.err.splitlines()[-1] == ended.err.strip()
    assert "Traceback" not in served.err


def test_it_accepts_the_settings_of_serve(capsys: pytest.CaptureFixture[str]) -> None:
    ended = call(capsys, "check", "--api-keys-file", "/no/file")
    assert (ended.status, "cannot be read" in ended.err) == (2, True)
