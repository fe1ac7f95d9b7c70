"""Loading the encoder for a command that runs it in its own process."""

import os
from typing import TYPE_CHECKING

from app.settings import ModelSettings

if TYPE_CHECKING:
    from models import Encoder


def quieten() -> None:
    """Before torch is there: keeps its threads from spinning, and transformers from talking over the command's output.

    A thread of OpenMP that waits for the others spins by default. Where the cores have something else to do, as a
    server's always have, that takes the time of those that it waits for: forward passes become several times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def encoder_for(settings: ModelSettings) -> "Encoder":
    """The encoder that the flags name; raises `models.ModelError`."""
    quieten()
    from app.main import load_encoder

    return load_encoder(settings)
