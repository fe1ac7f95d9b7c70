"""Permissions of the weight files that l2v writes."""

import os
from pathlib import Path


def apply_umask(folder: Path) -> None:
    """Gives safetensors files the usual permissions of a new file; safetensors lets only the owner read them.

    Otherwise, a container that runs as another user could not read them.
    """
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)
