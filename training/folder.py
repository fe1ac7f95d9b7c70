"""The output folder of a run: its settings, its checkpoints and the finished adapter."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState

from l2v.training import processes
from l2v.training.data_sources import digest
from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe

logger = logging.getLogger(__name__)

ADAPTER, STATE = "adapter_model.safetensors", "trainer_state.json"
_RECIPE, _PART = "recipe.json", "recipe.json.part"


def checkpoints(recipe: Recipe) -> Path:
    """The folder of the checkpoints."""
    return recipe.out / "checkpoints"


def check(recipe: Recipe) -> None:
    """Create the output folder, or check that its content belongs to this run.

    Raises:
        TrainingError: if the folder is not writable, or holds a finished adapter, another run or other files.
    """
    out, saved, settings = recipe.out, checkpoints(recipe), _settings(recipe)
    if (out / ADAPTER).exists():
        raise TrainingError(f"{out} already holds an adapter: choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir()} - {_PART}
        if saved.is_dir() and not any(saved.iterdir()):
            names.remove(saved.name)  # another process of this run may have just created it
    except OSError as error:
        raise TrainingError(f"{out} cannot be written ({error.strerror})") from error
    if names and _RECIPE not in names:
        raise TrainingError(f"{out} is not empty and does not hold a training run: choose another folder")
    if _complete(saved):
        before = _read(out / _RECIPE)["recipe"]
        for name in sorted(settings | before):
            if before.get(name) != settings.get(name):
                raise TrainingError(
                    f"{out} holds a run with {name} {before.get(name)}, not {settings.get(name)}: "
                    "choose another folder, or delete this one"
                )


def claim(recipe: Recipe) -> None:
    """Record the settings and the hashes of data and adapters, and delete incomplete checkpoints.

    In a resumed run, first check that settings, data and adapters have not changed.

    Raises:
        TrainingError: as `check` does, or if data or adapters have changed.
    """
    check(recipe)  # again: another run may have written to the folder since the preflight check
    file, saved = recipe.out / _RECIPE, checkpoints(recipe)
    current = {source: digest(source) for source in recipe.data}
    for adapter in recipe.adapters:
        current |= {str(path): digest(str(path)) for path in Path(adapter).glob("adapter_model.*")}
    if _complete(saved):
        before = _read(file)["hashes"]
        if changed := next((source for source in current if current[source] != before.get(source)), None):
            raise TrainingError(f"{changed} has changed since the run in {recipe.out} started: choose another folder")
    for checkpoint in (path for path in saved.glob("checkpoint-*") if not is_complete(path)):
        logger.info("deleting %s, which is incomplete", checkpoint.name)
        shutil.rmtree(checkpoint)
    part = recipe.out / _PART
    part.write_text(json.dumps({"recipe": _settings(recipe), "hashes": current}, indent=2) + "\n", encoding="utf-8")
    part.replace(file)


def _read(file: Path) -> dict[str, Any]:
    """The recorded settings and hashes."""
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        return {"recipe": dict(recorded["recipe"]), "hashes": dict(recorded["hashes"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{file} cannot be read: delete {file.parent} to start over") from error


def data_hashes(recipe: Recipe) -> dict[str, str]:
    """The recorded hashes of the data."""
    recorded = _read(recipe.out / _RECIPE)["hashes"]
    return {source: recorded[source] for source in recipe.data}


def clean_up(recipe: Recipe) -> None:
    """Delete the recorded settings and the checkpoints of a finished run."""
    (recipe.out / _RECIPE).unlink()
    shutil.rmtree(checkpoints(recipe))


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that a resumed run must share."""
    return recipe.to_dict() | {"processes": PartialState().num_processes, "sharded": processes.is_sharded()}


def move_files(source: Path, target: Path, last: str) -> None:
    """Move all files from `source` to `target`; the file `last` is moved last and marks the folder as complete."""
    for file in sorted(source.iterdir(), key=lambda file: file.name == last):
        file.replace(target / file.name)
    source.rmdir()


def latest_checkpoint(saved: Path, steps: int) -> Path | None:
    """The latest complete checkpoint before the final step. A run resumed from the final step would exceed `steps`."""
    complete = _complete(saved)
    return complete.get(max((step for step in complete if step < steps), default=0))


def _complete(saved: Path) -> dict[int, Path]:
    """Complete checkpoints by step."""
    return {int(path.name.rpartition("-")[2]): path for path in saved.glob("checkpoint-*") if is_complete(path)}


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to the end: the trainer writes its state last."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
