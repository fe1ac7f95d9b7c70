"""A run that is killed goes on, and ends where it would have ended."""

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
    told = ["train", stage, out, "--model", base, "--data", data, "--dtype", "float32", "--device", "cpu"]
    told += ["--steps", STEPS, "--save-steps", 3, "--log-steps", 1, "--batch-size", 8, "--learning-rate", "1e-2"]
    return list(map(str, [*told, *flags]))


def losses(out: Path) -> dict[int, float]:
    return dict(json.loads((out / "run.json").read_text())["losses"])


def start_and_kill_after_checkpoint(told: Sequence[object], out: Path, **environment: str) -> None:
    """kill -9 once a checkpoint is whole: its last file is there to the last line."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(list(map(str, told)), env=os.environ | environment, cwd=ROOT, **quiet)

    def whole(state: Path) -> bool:
        with suppress(FileNotFoundError):  # an old one is removed
            return state.read_text().endswith("}\n")
        return False

    deadline = time.monotonic() + 240
    while not any(map(whole, out.glob("checkpoints/checkpoint-*/trainer_state.json"))):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    others = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    try:
        # The processes of a launcher that is killed alone go on.
        assert not others or is_taken(out)
    finally:
        for process in others:
            with suppress(psutil.NoSuchProcess):  # of the others' death
                process.kill()
        psutil.wait_procs(others)
    assert not (out / "adapter_model.safetensors").exists(), "the run was over before it was killed"


def is_taken(out: Path) -> bool:
    """Whether a run has the folder."""
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
    """At whatever step of an epoch the kill finds it; masks, dropout and the order go on as before."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    source = request.getfixturevalue(data)
    assert call(capsys, *command(stage, whole, base, source, *flags)).status == 0
    told = command(stage, cut, base, source, *flags)
    start_and_kill_after_checkpoint([L2V, *told], cut)
    assert call(capsys, *told).status == 0
    assert "going on from checkpoint-" in caplog.text
    check_alike(cut, whole, base)


def test_a_killed_run_of_two_processes_ends_with_the_same_loss(base: Path, pairs: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    environment = {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}

    def told(out: Path) -> list[str]:
        flags = ("--batch-size", 40, "--warmup-steps", 2, "--save-steps", 10)
        return [*SHARDED, *command("supervised", out, base, pairs, *flags)]

    def train(out: Path) -> str:
        return subprocess.run(
            told(out), check=True, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True
        ).stderr

    train(whole)
    start_and_kill_after_checkpoint(told(cut), cut, SAVE_LATE="yes", **environment)
    assert "going on from checkpoint-" in train(cut)
    check_alike(cut, whole, base)


def test_a_folder_belongs_to_one_run_at_a_time(base: Path, lines: Path, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(TrainingError, match=f"another run is at work in {tmp_path}"):
        contrastive.train(simcse(base, lines, tmp_path))
    os.close(descriptor)


def test_a_checkpoint_that_was_cut_off_is_passed_over(
    base: Path, lines: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a full disk or a kill in the middle of saving leaves it."""
    begun = interrupted(base, lines, tmp_path / "out")
    newest = begun.out / "checkpoints/checkpoint-2"
    (newest / "trainer_state.json").unlink()
    (newest / "adapter_model.safetensors").write_bytes(b"half")
    with caplog.at_level("INFO", "l2v.training"):
        contrastive.train(begun)
    assert "checkpoint-2 was cut off" in caplog.text
    assert "going on from checkpoint-1" in caplog.text


def test_a_folder_of_another_run_is_left_alone(base: Path, lines: Path, tmp_path: Path) -> None:
    begun = interrupted(base, lines, tmp_path / "out")
    with pytest.raises(TrainingError, match="holds a run with steps 2, not 9"):
        contrastive.build(begun.model_copy(update={"steps": 9}))
    for name, reason in (
        ("thesis.txt", "holds no run of ours"),
        ("checkpoints/thesis.txt", "holds no run of ours"),
        ("recipe.json", "delete .* to begin anew"),
    ):
        other = tmp_path / name.replace("/", "-")
        shutil.copytree(begun.out, other)
        (other / "recipe.json").unlink()
        (other / name).write_text("mine")
        with pytest.raises(TrainingError, match=reason):
            contrastive.build(begun.model_copy(update={"out": other}))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="file cannot be written"):
        contrastive.build(begun.model_copy(update={"out": tmp_path / "file"}))
    contrastive.train(begun)
    with pytest.raises(TrainingError, match="holds an adapter already"):
        contrastive.build(begun)


def test_a_run_goes_on_with_what_it_began_with(base: Path, lines: Path, tmp_path: Path) -> None:
    source = tmp_path / "lines.txt"
    source.write_bytes(lines.read_bytes())
    begun = interrupted(base, source, tmp_path / "out")
    with source.open("a") as file:
        file.write("\none more")
    with pytest.raises(TrainingError, match=r"lines.txt is not what the run in .*out began with"):
        contrastive.train(begun)


def test_what_fails_at_the_very_end_is_done_again(base: Path, lines: Path, tmp_path: Path) -> None:
    """The adapter is there when all that belongs to it is; and nothing is learnt again."""
    begun = interrupted(base, lines, tmp_path / "out")
    assert not list(begun.out.glob("adapter*"))
    state = json.loads((begun.out / "checkpoints/checkpoint-2/trainer_state.json").read_text())
    trained = [[entry["step"], entry["loss"]] for entry in state["log_history"] if "loss" in entry]
    (begun.out / "checkpoints/checkpoint-1/trainer_state.json").unlink()
    contrastive.train(begun)
    assert json.loads((begun.out / "run.json").read_text())["losses"] == trained
    contrastive.train(whole := begun.model_copy(update={"out": tmp_path / "whole"}))
    assert losses(begun.out) == losses(whole.out)
    assert {path.name for path in begun.out.iterdir()} == {path.name for path in whole.out.iterdir()}


def interrupted(base: Path, lines: Path, out: Path) -> Simcse:
    """Of two steps, when nothing is left to do but to write the card."""
    recipe = simcse(base, lines, out, save_steps=1, log_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "plot", lambda *args: Path("/dev/full").write_text("x"))
        with pytest.raises(TrainingError, match="No space left on device"):
            contrastive.train(recipe)
    return recipe


def test_a_full_disk_leaves_the_last_checkpoint_whole(base: Path, lines: Path, tmp_path: Path) -> None:
    """Files may grow to 100 kB only, which the optimizer's state is beyond and the adapter is not."""
    out = tmp_path / "out"
    script = f"ulimit -f 100; exec {L2V} {' '.join(command('simcse', out, base, lines, '--lora-r', 16))}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
