"""Configures torch's libraries and transformers in this process."""

import os
import sys
import warnings

LIBRARIES = {"OMP_WAIT_POLICY": "PASSIVE", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}


def prepare_libraries(*, serving: bool = False) -> None:
    """Configures torch's libraries and silences transformers. Call it before torch is imported.

    OpenMP threads are made to sleep while they wait for each other. By default, they spin, which makes forward passes
    several times slower if the cores have other work, as in a server. The caches of oneDNN and torch are limited to 64
    kernels each. By default, each holds 1,024 kernels, one per shape, of a quarter of a megabyte each. Few shapes
    repeat: the shapes of the current batch, which all layers use, and the shapes of LoRA modules' blocks. Environment
    variables that are already set keep their values.

    Args:
        serving: tokenize each list in one thread. The service tokenizes in its own threads; if each list used all
            cores, forward passes would have to wait.
    """
    os.environ.update(LIBRARIES | ({"TOKENIZERS_PARALLELISM": "false"} if serving else {}) | os.environ)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    import transformers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    show_downloads = sys.stderr.isatty() and not are_progress_bars_disabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()  # also disables the bars of downloads
    if show_downloads:
        enable_progress_bars()
