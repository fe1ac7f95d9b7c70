"""Loading the encoder for a command that runs it in its own process."""

import os
import sys
from typing import TYPE_CHECKING

from l2v.app.logs import configure_logging
from l2v.models.settings import ModelSettings

if TYPE_CHECKING:
    from l2v.models import Encoder


LIBRARIES = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32",
    "LRU_CACHE_CAPACITY": "32",
}


def prepare_libraries() -> None:
    """Before torch is there: tells its libraries how a server wants them, and keeps transformers from talking.

    A thread of OpenMP that waits for the others spins by default. Where the cores have something else to do, as a
    server's always have, that takes the time of those that it waits for: forward passes become several times slower.
    oneDNN, and torch's layer above it, each keep what they made for every shape of a product that they ever saw, 1,024
    of them by default: a quarter of a megabyte each, and hardly a shape comes twice.
    """
    os.environ.update(LIBRARIES | os.environ)
    import transformers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    transformers.logging.set_verbosity_error()
    wanted = sys.stderr.isatty() and not are_progress_bars_disabled()
    transformers.logging.disable_progress_bar()  # of weights that are read, and of what is fetched from the Hub
    if wanted:
        enable_progress_bars()


def prepare_service(log_level: str) -> None:
    """The same for a process that serves, which logs at that level."""
    # The service tokenises in threads of its own; were each list spread over all cores, forward passes would wait.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    prepare_libraries()
    configure_logging(log_level)


def encoder_for(settings: ModelSettings, *, packed: bool = True) -> "Encoder":
    """The encoder that the flags name, see `models.load`; raises `models.ModelError`."""
    prepare_libraries()
    return settings.load(packed=packed)
