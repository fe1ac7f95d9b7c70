"""A file that is only appended to, and that a resumed run truncates to its last durable size."""

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from l2v.app.bulk.errors import CommandError, file_errors


class AppendedFile:
    """A file locked by this process.

    Attributes:
        size: the number of bytes written; `sync` makes these bytes durable.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Open the file and truncate it to `size` bytes, since the rest was never committed."""
        self.path, self.size = path, size
        with file_errors("write", path), ExitStack() as stack:
            self._file = stack.enter_context(path.open("ab"))
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(f"another run is writing {path}") from None
            if self._file.tell() < size:
                raise CommandError(f"{path} is shorter than the last run left it: restore the file or start over")
            self._file.truncate(size)
            stack.pop_all()  # keep the file open

    def write(self, content: bytes) -> None:
        with file_errors("write", self.path):
            self._file.write(content)
        self.size += len(content)

    def sync(self) -> None:
        """Make everything written so far durable."""
        with file_errors("write", self.path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with file_errors("write", self.path):
            self._file.close()
