"""How a run ends before its time: in a sentence, with what to do."""

from pathlib import Path

import pytest
import torch

from l2v.training import mntp
from l2v.training.recipes import Mntp
from tests.bulk.shell import call


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on from the last checkpoint in {}"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "needs more memory than is free: lower --micro-batch"),
    ],
)
def test_a_run_that_is_ended_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BaseException,
    status: int,
    said: str,
) -> None:
    def train(recipe: Mntp) -> None:
        raise error

    monkeypatch.setattr(mntp, "train", train)
    ended = call(capsys, "train", "mntp", tmp_path / "out", "--data", "texts")
    assert (ended.status, said.format(tmp_path / "out") in ended.err) == (status, True)
