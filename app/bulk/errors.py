"""What ends a command, as one sentence for the person at the shell.

Exception
└── BulkError             status 1
    ├── BadRowError         a row of the input is at fault
    └── UsageError          status 2: the flags do not go together
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class BulkError(Exception):
    """The command cannot go on; the message says why and what to do."""

    status: ClassVar[int] = 1


class BadRowError(BulkError):
    """A row is at fault, and nobody said to set such rows aside."""


class UsageError(BulkError):
    """The flags do not go together."""

    status = 2


@contextmanager
def telling(action: str, path: Path | str) -> Iterator[None]:
    """Turns what the operating system says into one sentence, like `cannot read a.csv: Permission denied`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BulkError(f"cannot {action} {path}: {error.strerror or error}") from None
