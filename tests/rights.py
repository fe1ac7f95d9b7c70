"""The rights of a file that nothing was done to."""

from pathlib import Path


def readable(folder: Path) -> int:
    """The rights that a new file gets here."""
    file = folder / "new"
    file.touch()
    rights = file.stat().st_mode & 0o777
    file.unlink()
    return rights
