"""A run that is killed goes on, and ends where it would have ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from models import load
from tests.training.conftest import LAUNCH, SHARDED
from tests.training.test_contrastive import simcse
from training import contrastive
from training.errors import TrainingError

L2V = Path(sys.executable).with_name("l2v")
ROOT = Path(__file__).parents[2]


def command(
    stage: str, out: Path, base: Path, data: Path, *flags: object, launch: Sequence[object] = (L2V,)
) -> list[str]:
    told = [*launch, "train", stage, out, "--model", base, "--data", data, "--dtype", "float32", "--device", "cpu"]
    told += ["--steps", 30, "--save-steps", 3, "--log-steps", 1, "--batch-size", 8, "--learning-rate", "1e-2"]
    return list(map(str, [*told, *flags]))


def losses(out: Path) -> dict[int, float]:
    return dict(json.loads((out / "run.json").read_text())["losses"])


def wait_for_checkpoint(run: subprocess.Popen[bytes], out: Path) -> None:
    """Until one is whole: its last file is there to the last line."""

    def whole(state: Path) -> bool:
        return state.read_text().endswith("}\n")

    deadline = time.monotonic() + 120
    while not any(map(whole, out.glob("checkpoints/checkpoint-[369]/trainer_state.json"))):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_after_checkpoint(run: subprocess.Popen[bytes], out: Path) -> None:
    """kill -9 once a checkpoint is whole."""
    wait_for_checkpoint(run, out)
    for process in [started := psutil.Process(run.pid), *started.children(recursive=True)]:
        process.kill()
    run.wait()


@pytest.mark.parametrize(
    ("stage", "data", "flags", "launch"),
    [
        ("mntp", "texts", ("--max-length", 32, "--micro-batch", 4), (L2V,)),
        ("simcse", "lines", (), (L2V,)),
        ("supervised", "pairs", ("--warmup-steps", 2), SHARDED),
    ],
)
def test_a_killed_run_ends_with_the_same_loss(
    stage: str,
    data: str,
    flags: tuple[object, ...],
    launch: Sequence[object],
    base: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """At whatever step the kill finds it; masks and dropout go on as before."""
    source = request.getfixturevalue(data)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    train_whole, train_cut = (command(stage, out, base, source, *flags, launch=launch) for out in (whole, cut))
    subprocess.run(train_whole, check=True, env=environment, cwd=ROOT, capture_output=True)
    run = subprocess.Popen(
        train_cut,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    kill_after_checkpoint(run, cut)
    assert not (cut / "adapter_model.safetensors").exists(), "the run was over before it was killed"
    again = subprocess.run(train_cut, check=True, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert "going on from checkpoint-" in again.stderr
    assert losses(cut) == pytest.approx(losses(whole), abs=1e-6)
    assert losses(cut)[30] < losses(cut)[1]
    assert not (cut / "checkpoints").exists()
    load(str(base), [str(cut)], dtype="float32")


def test_a_folder_belongs_to_one_run_at_a_time(base: Path, lines: Path, tmp_path: Path) -> None:
    """The processes of a launcher that is killed alone go on."""
    out = tmp_path / "out"
    told = command("simcse", out, base, lines, "--steps", 10_000, launch=[*LAUNCH, "--cpu", "-m", "app.cli"])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    launcher = subprocess.Popen(told, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_checkpoint(launcher, out)
    left = psutil.Process(launcher.pid).children(recursive=True)
    try:
        launcher.kill()
        launcher.wait()
        second = subprocess.run(told, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert second.returncode == 1
        assert f"another run is at work in {out}" in second.stderr
        assert any(process.is_running() for process in left)
    finally:
        for process in left:
            process.kill()


def test_a_checkpoint_that_was_cut_off_is_passed_over(base: Path, lines: Path, tmp_path: Path) -> None:
    """As a full disk or a kill in the middle of saving leaves it."""
    out = tmp_path / "out"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(command("simcse", out, base, lines), env=environment, stderr=subprocess.DEVNULL)
    kill_after_checkpoint(run, out)
    newest = out / "checkpoints/checkpoint-29"
    newest.mkdir()
    (newest / "adapter_model.safetensors").write_bytes(b"half")
    done = subprocess.run(
        command("simcse", out, base, lines), check=True, env=environment, capture_output=True, text=True
    )
    assert "checkpoint-29 was cut off" in done.stderr


def test_a_folder_of_another_run_is_left_alone(base: Path, lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    contrastive.build(simcse(base, lines, out))
    with pytest.raises(TrainingError, match="holds a run with steps 2, not 9"):
        contrastive.build(simcse(base, lines, out, steps=9))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds no run of ours"):
        contrastive.build(simcse(base, lines, other))
    done = tmp_path / "done"
    contrastive.train(simcse(base, lines, done))
    with pytest.raises(TrainingError, match="holds an adapter already"):
        contrastive.build(simcse(base, lines, done))


def test_a_full_disk_leaves_the_last_checkpoint_whole(base: Path, lines: Path, tmp_path: Path) -> None:
    """Files may grow to 100 kB only, which the optimizer's state is beyond and the adapter is not."""
    out = tmp_path / "out"
    script = f"ulimit -f 100; exec {' '.join(command('simcse', out, base, lines, '--lora-r', 16))}"
    done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
