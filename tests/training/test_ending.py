"""A run that ends early prints one sentence that says what to do."""

from pathlib import Path

import pytest
import torch

from l2v.training import mntp
from l2v.training.recipes import Mntp
from tests.bulk.shell import call


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command to resume from the last checkpoint in {}"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "training ran out of memory: lower --micro-batch"),
    ],
)
def test_a_run_that_ends_early_says_how_to_continue(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    status: int,
    message: str,
) -> None:
    def build(recipe: Mntp) -> None:
        raise error

    monkeypatch.setattr(mntp, "build", build)
    ended = call(capsys, "train", "mntp", tmp_path / "out", "--model", "m", "--data", "texts")
    assert (ended.status, message.format(tmp_path / "out") in ended.err) == (status, True)
