"""Preparing this process for a model, and loading one."""

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
    """Configure torch's libraries and silence transformers. Call it before torch is imported.

    By default, OpenMP threads spin while they wait for each other. If the cores have other work, as in a server, that
    makes forward passes several times slower. oneDNN and torch each cache 1,024 kernels by default, one per shape and
    a quarter of a megabyte each, but few shapes come twice.
    """
    os.environ.update(LIBRARIES | os.environ)
    import transformers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    show_downloads = sys.stderr.isatty() and not are_progress_bars_disabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # also disables the bars of downloads
    if show_downloads:
        enable_progress_bars()


def prepare_service(log_level: str) -> None:
    """Prepare a process that serves and logs. Call it before torch is imported."""
    # The service tokenizes in its own threads. If each list used all cores, forward passes would have to wait.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    prepare_libraries()
    configure_logging(log_level)


def load_encoder(settings: ModelSettings, *, prepack: bool = True) -> "Encoder":
    """Load the encoder of the settings, see `models.load`. Raises `ModelError`."""
    prepare_libraries()
    return settings.load(prepack=prepack)
