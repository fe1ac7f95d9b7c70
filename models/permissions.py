"""Permissions of the weights that are written here."""

import os
from pathlib import Path


def apply_umask(folder: Path) -> None:
    """Gives safetensors files the permissions of any other new file; safetensors creates them for their owner only.

    A container runs as another user and could not read them.
    """
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~mask)
