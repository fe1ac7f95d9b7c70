"""Checks the folder that an export is written to. Imports no torch, so that the check takes no time."""

import os
from pathlib import Path

from l2v.models.errors import ModelError


def check_free(out: Path) -> None:
    """Raises `ModelError` if `out` exists and is not an empty folder, or if it cannot be created."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} already exists: name a new folder")
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise ModelError(f"{out} cannot be written, since {parent} is not a writable folder: name another folder")
