"""Who may read the weights that are written here."""

import os
from pathlib import Path


def share(folder: Path) -> None:
    """Gives weights the rights that any other new file has, as safetensors writes them for their owner alone.

    Without, a container, which runs as a user of its own, could not read what was made outside it.
    """
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)
