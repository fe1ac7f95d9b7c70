"""Errors that end a command with a one-sentence message.

Exception
└── CommandError      status 1
    └── UsageError      status 2: invalid flags
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar


class CommandError(Exception):
    """The command cannot continue. The message says why and what to do."""

    status: ClassVar[int] = 1


class UsageError(CommandError):
    """A flag does not fit the model or the other flags."""

    status = 2


@contextmanager
def file_errors(action: str, path: Path | str) -> Iterator[None]:
    """Turn an `OSError` into a `CommandError` like `cannot read a.csv: Permission denied`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"cannot {action} {path}: {error.strerror or error}") from None
