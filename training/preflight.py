"""Checks for problems that can be detected before anything is loaded."""

from datetime import timedelta

from accelerate import PartialState

from l2v.training import folder, memory
from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe

# How long the other processes wait while the first process reads and tokenizes the texts.
_TIMEOUT = timedelta(hours=12)


def check(recipe: Recipe) -> None:
    """Check device, memory and output folder, in the first process.

    Raises:
        TrainingError: if there is no GPU for --device cuda, memory is short, or the folder is not free for this run.
    """
    if recipe.device == "cuda" and not recipe.on_cuda:
        raise TrainingError("--device cuda: torch finds no GPU; use --device cpu, or fix the driver or torch")
    state = PartialState(cpu=recipe.device == "cpu", timeout=_TIMEOUT)
    if state.is_main_process:
        memory.check(recipe, state.num_processes)
        folder.check(recipe)
    state.wait_for_everyone()  # no process may load the model while the first process measures free memory
