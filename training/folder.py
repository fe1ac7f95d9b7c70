"""The folder of a run: whose it is, its checkpoints, and when what is left in it is whole."""

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState

from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe
from l2v.training.sources import digest

logger = logging.getLogger(__name__)

ADAPTER, STATE = "adapter_model.safetensors", "trainer_state.json"
_RECIPE, _PART = "recipe.json", "recipe.json.part"


def checkpoints(recipe: Recipe) -> Path:
    """Where they are."""
    return recipe.out / "checkpoints"


def check(recipe: Recipe) -> None:
    """Makes the folder, or sees that what stands there is this run's."""
    out, begun, now = recipe.out, checkpoints(recipe), _told(recipe)
    if (out / ADAPTER).exists():
        raise TrainingError(f"{out} holds an adapter already: choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in out.iterdir()} - {_PART}
        if begun.is_dir() and not any(begun.iterdir()):
            there.remove(begun.name)  # as another process of the run makes it
    except OSError as error:
        raise TrainingError(f"{out} cannot be written ({error.strerror})") from error
    if there and _RECIPE not in there:
        raise TrainingError(f"{out} is not empty and holds no run of ours: choose another folder")
    if _whole(begun):
        before = _read(out / _RECIPE)["recipe"]
        for name in sorted(now | before):
            if before.get(name) != now.get(name):
                raise TrainingError(
                    f"{out} holds a run with {name} {before.get(name)}, not {now.get(name)}: "
                    "choose another folder, or delete that one"
                )


def claim(recipe: Recipe) -> None:
    """Notes what the run is told and what it learns from; or, where it was begun, sees that this has not changed."""
    check(recipe)  # once more: another run may have been at work
    file, begun = recipe.out / _RECIPE, checkpoints(recipe)
    taken = {source: digest(source) for source in recipe.data}
    for adapter in recipe.adapters:
        taken |= {str(file): digest(str(file)) for file in Path(adapter).glob("adapter_model.*")}
    if _whole(begun):
        before = _read(file)["hashes"]
        if changed := next((source for source in taken if taken[source] != before.get(source)), None):
            raise TrainingError(f"{changed} is not what the run in {recipe.out} began with: choose another folder")
    for folder in (path for path in begun.glob("checkpoint-*") if not is_whole(path)):
        logger.info("%s was cut off while it was written, and is left out", folder.name)
        shutil.rmtree(folder)
    part = recipe.out / _PART
    part.write_text(json.dumps({"recipe": _told(recipe), "hashes": taken}, indent=2) + "\n", encoding="utf-8")
    part.replace(file)


def _read(file: Path) -> dict[str, Any]:
    """What a run was told, and the hashes of what it learns from and stands on."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {"recipe": dict(told["recipe"]), "hashes": dict(told["hashes"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{file} cannot be read: delete {file.parent} to begin anew") from error


def hashes(recipe: Recipe) -> dict[str, str]:
    """Those of the data, as they were noted."""
    noted = _read(recipe.out / _RECIPE)["hashes"]
    return {source: noted[source] for source in recipe.data}


def release(recipe: Recipe) -> None:
    """Removes what only an unfinished run needs."""
    (recipe.out / _RECIPE).unlink()
    shutil.rmtree(checkpoints(recipe))


def _told(recipe: Recipe) -> dict[str, Any]:
    """What must not change from one start of a run to the next."""
    return recipe.told() | {"processes": PartialState().num_processes, "sharded": sharded()}


def sharded() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def settle(part: Path, folder: Path, last: str) -> None:
    """Moves the files of `part` into `folder`, the `last` one last: once it is there, all are, and whole."""
    for file in sorted(part.iterdir(), key=lambda file: file.name == last):
        file.replace(folder / file.name)
    part.rmdir()


def newest(begun: Path, steps: int) -> Path | None:
    """The last checkpoint that was written to its end, before the last of all: from there the trainer goes beyond."""
    whole = _whole(begun)
    return whole.get(max((step for step in whole if step < steps), default=0))


def _whole(begun: Path) -> dict[int, Path]:
    """Checkpoints by their step."""
    return {int(path.name.rpartition("-")[2]): path for path in begun.glob("checkpoint-*") if is_whole(path)}


def is_whole(checkpoint: Path) -> bool:
    """The trainer's state is its last file."""
    try:
        json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
