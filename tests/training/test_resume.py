"""A killed run resumes and ends with the losses of an uninterrupted one."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from l2v.models import load
from l2v.training import card, contrastive
from l2v.training.errors import TrainingError
from l2v.training.recipes import Simcse
from tests.bulk.shell import call
from tests.training.conftest import SHARDED
from tests.training.test_contrastive import simcse

L2V = Path(sys.executable).with_name("l2v")
ROOT = Path(__file__).parents[2]
STEPS = 60


def command(stage: str, out: Path, base: Path, data: Path, *flags: object) -> list[str]:
    words = ["train", stage, out, "--model", base, "--data", data, "--dtype", "float32", "--device", "cpu"]
    words += ["--steps", STEPS, "--save-steps", 3, "--log-steps", 1, "--batch-size", 8, "--learning-rate", "1e-2"]
    return list(map(str, [*words, *flags]))


def losses(out: Path) -> dict[int, float]:
    return dict(json.loads((out / "run.json").read_text())["losses"])


def start_and_kill_after_checkpoint(words: Sequence[object], out: Path, **environment: str) -> None:
    """Send SIGKILL once a checkpoint is complete: the trainer writes `trainer_state.json` last."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(list(map(str, words)), env=os.environ | environment, cwd=ROOT, **quiet)

    def is_complete(state: Path) -> bool:
        with suppress(FileNotFoundError):  # the run deletes old checkpoints
            return state.read_text().endswith("}\n")
        return False

    deadline = time.monotonic() + 240
    while not any(map(is_complete, out.glob("checkpoints/checkpoint-*/trainer_state.json"))):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    others = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    try:
        # The processes of a killed launcher continue.
        assert not others or is_locked(out)
    finally:
        for process in others:
            with suppress(psutil.NoSuchProcess):  # ending one process may have ended this one
                process.kill()
        psutil.wait_procs(others)
    assert not (out / "adapter_model.safetensors").exists(), "the run ended before it was killed"


def is_locked(out: Path) -> bool:
    """Whether a run has locked the folder."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def check_alike(cut: Path, whole: Path, base: Path) -> None:
    assert losses(cut) == pytest.approx(losses(whole), abs=1e-6)
    assert losses(cut)[STEPS] < losses(cut)[1]
    assert not (cut / "checkpoints").exists()
    load(str(base), [str(cut)], dtype="float32")


@pytest.mark.parametrize(
    ("stage", "data", "flags"),
    [
        ("mntp", "texts", ("--max-length", 32, "--batch-size", 20, "--micro-batch", 10)),
        ("simcse", "lines", ("--batch-size", 40)),
    ],
)
def test_a_killed_run_ends_with_the_same_loss(
    stage: str,
    data: str,
    flags: tuple[object, ...],
    base: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Masks, dropout and data order continue as if the run had not been killed, from any step of an epoch."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    source = request.getfixturevalue(data)
    assert call(capsys, *command(stage, whole, base, source, *flags)).status == 0
    words = command(stage, cut, base, source, *flags)
    start_and_kill_after_checkpoint([L2V, *words], cut)
    assert call(capsys, *words).status == 0
    assert "resuming from checkpoint-" in caplog.text
    check_alike(cut, whole, base)


@pytest.mark.long
def test_a_killed_run_of_two_processes_ends_with_the_same_loss(base: Path, pairs: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    environment = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

    def words(out: Path) -> list[str]:
        flags = ("--batch-size", 40, "--warmup-steps", 2, "--save-steps", 10)
        return [*SHARDED, *command("supervised", out, base, pairs, *flags)]

    def train(out: Path) -> str:
        return subprocess.run(
            words(out), check=True, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
        ).stderr

    train(whole)
    start_and_kill_after_checkpoint(words(cut), cut, SAVE_LATE="yes", **environment)
    assert "resuming from checkpoint-" in train(cut)
    check_alike(cut, whole, base)


def test_a_folder_belongs_to_one_run_at_a_time(base: Path, lines: Path, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TrainingError, match=f"another run is using {tmp_path}"):
        contrastive.build(simcse(base, lines, tmp_path)).run()
    os.close(descriptor)


def test_an_incomplete_checkpoint_is_skipped(
    base: Path, lines: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk or a kill while saving leaves an incomplete checkpoint."""
    recipe = interrupted(base, lines, tmp_path / "out")
    latest = recipe.out / "checkpoints/checkpoint-2"
    (latest / "trainer_state.json").unlink()
    (latest / "adapter_model.safetensors").write_bytes(b"half")
    with caplog.at_level("INFO", "l2v.training"):
        contrastive.build(recipe).run()
    assert "deleting checkpoint-2, which is incomplete" in caplog.text
    assert "resuming from checkpoint-1" in caplog.text


def test_the_folder_of_another_run_is_not_used(base: Path, lines: Path, tmp_path: Path) -> None:
    recipe = interrupted(base, lines, tmp_path / "out")
    with pytest.raises(TrainingError, match="holds a run with steps 2, not 9"):
        contrastive.build(recipe.model_copy(update={"steps": 9}))
    for name, reason in (
        ("thesis.txt", "does not hold a training run"),
        ("checkpoints/thesis.txt", "does not hold a training run"),
        ("recipe.json", "delete .* to start over"),
    ):
        other = tmp_path / name.replace("/", "-")
        shutil.copytree(recipe.out, other)
        (other / "recipe.json").unlink()
        (other / name).write_text("mine")
        with pytest.raises(TrainingError, match=reason):
            contrastive.build(recipe.model_copy(update={"out": other}))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="file cannot be written"):
        contrastive.build(recipe.model_copy(update={"out": tmp_path / "file"}))
    contrastive.build(recipe).run()
    with pytest.raises(TrainingError, match="already holds an adapter"):
        contrastive.build(recipe)


def test_a_resumed_run_must_have_the_same_data(base: Path, lines: Path, tmp_path: Path) -> None:
    source = tmp_path / "lines.txt"
    source.write_bytes(lines.read_bytes())
    recipe = interrupted(base, source, tmp_path / "out")
    with source.open("a") as file:
        file.write("\none more")
    with pytest.raises(TrainingError, match=r"lines.txt has changed since the run in .*out started"):
        contrastive.build(recipe).run()


def test_a_failure_while_writing_the_adapter_can_be_resumed(base: Path, lines: Path, tmp_path: Path) -> None:
    """The adapter appears only when all its files are complete, and no step is trained again."""
    recipe = interrupted(base, lines, tmp_path / "out")
    assert not list(recipe.out.glob("adapter*"))
    state = json.loads((recipe.out / "checkpoints/checkpoint-2/trainer_state.json").read_text())
    trained = [[entry["step"], entry["loss"]] for entry in state["log_history"] if "loss" in entry]
    (recipe.out / "checkpoints/checkpoint-1/trainer_state.json").unlink()
    contrastive.build(recipe).run()
    assert json.loads((recipe.out / "run.json").read_text())["losses"] == trained
    contrastive.build(whole := recipe.model_copy(update={"out": tmp_path / "whole"})).run()
    assert losses(recipe.out) == losses(whole.out)
    assert {path.name for path in recipe.out.iterdir()} == {path.name for path in whole.out.iterdir()}


def interrupted(base: Path, lines: Path, out: Path) -> Simcse:
    """The recipe of a run that fails after its two steps, while writing the model card."""
    recipe = simcse(base, lines, out, save_steps=1, log_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "plot", lambda *args: Path("/dev/full").write_text("x"))
        with pytest.raises(TrainingError, match="No space left on device"):
            contrastive.build(recipe).run()
    return recipe


def test_a_full_disk_keeps_the_last_complete_checkpoint(base: Path, lines: Path, tmp_path: Path) -> None:
    """Files are limited to 100 kB: the adapter fits, the optimizer's state does not."""
    out = tmp_path / "out"
    script = f"ulimit -f 100; exec {L2V} {' '.join(command('simcse', out, base, lines, '--lora-r', 16))}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
