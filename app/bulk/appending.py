"""A file that only grows, and can be set back to where it was known to be whole."""

import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from l2v.app.bulk.errors import BulkError, telling


class AppendedFile:
    """Belongs to one process at a time.

    Attributes:
        size: bytes written, of which `sync` makes all durable.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Opens the file behind its first `size` bytes; what stands there beyond was never committed and goes."""
        self.path, self.size = path, size
        with telling("write", path), ExitStack() as stack:
            self._file = stack.enter_context(path.open("ab"))
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BulkError(f"another run is writing {path}") from None
            if self._file.tell() < size:
                raise BulkError(f"{path} is shorter than the last run left it")
            self._file.truncate(size)
            stack.pop_all()  # it stays open

    def write(self, content: bytes) -> None:
        with telling("write", self.path):
            self._file.write(content)
        self.size += len(content)

    def sync(self) -> int:
        """Makes all of it durable; the size until then."""
        with telling("write", self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self.size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with telling("write", self.path):
            self._file.close()
