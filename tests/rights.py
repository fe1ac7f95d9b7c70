"""File permissions."""

from pathlib import Path


def readable(folder: Path) -> int:
    """Returns the permissions that a new file gets by default."""
    file = folder / "new"
    file.touch()
    mode = file.stat().st_mode & 0o777
    file.unlink()
    return mode
