"""`l2v train`: trains an adapter and reports the outcome on the terminal."""

import logging
import sys
from importlib import import_module
from importlib.util import find_spec

from l2v.training import processes
from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe


def run(recipe: Recipe) -> None:
    """Train, then print how to serve the result.

    Raises:
        ModelError: if the model cannot be loaded.
        TrainingError: if the packages of the extra `train` are missing, or the run fails for another known reason.
    """
    # An installation that is only for serving lacks these packages.
    if any(find_spec(name) is None for name in ("accelerate", "datasets", "matplotlib", "sentence_transformers")):
        raise TrainingError("training needs the extra `train`: pip install '.[train]'")
    # With `accelerate launch`, only the main process reports.
    if reports := processes.is_main():
        recipe.announce()
    from l2v.models.runtime import prepare_libraries

    prepare_libraries()  # before torch is imported: it keeps torch's threads from waiting busily
    from l2v.models.faults import Fault
    from l2v.training.memory import ADVICE

    logging.basicConfig(format="%(message)s")
    logging.getLogger("l2v.training").setLevel("INFO" if reports else "WARNING")
    try:
        import_module(f"l2v.training.{recipe.module}").build(recipe).run()
    except KeyboardInterrupt:
        if reports:
            print(
                f"l2v: interrupted; run the same command to resume from the last checkpoint in {recipe.out}",
                file=sys.stderr,
            )
        raise
    except RuntimeError as error:
        if Fault.of(error) is not Fault.OUT_OF_MEMORY:
            raise
        raise TrainingError(f"training ran out of memory: {ADVICE}") from error
    if reports:
        print(f"wrote {recipe.out}: serve it with `{recipe.serve_command}`")
