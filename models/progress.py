"""Progress of loading: a bar on a terminal, and log lines."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def stage(name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows a stage of loading: a bar on a terminal, and log lines at its start and every ten seconds.

    If logging is off, as in most commands, and there is no bar, the periodic lines are printed to standard error.

    Args:
        name: a description of the stage.
        total: the number of bytes to process; None if it is unknown.

    Yields:
        A function to call with the number of bytes processed since the last call.
    """
    done, last_line = 0, time.monotonic()
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn()
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(name, total=total)

    def advance(size: int) -> None:
        nonlocal done, last_line
        done += size
        bar.advance(task, size)
        if time.monotonic() - last_line < _SECONDS_BETWEEN_LINES:
            return
        last_line = time.monotonic()
        line = f"{name}: {done / 1e9:.1f}{f' of {total / 1e9:.1f}' if total else ''} GB"
        if logger.isEnabledFor(logging.INFO):
            logger.info(line, extra={"stage": name, "bytes": done, "total_bytes": total})
        elif not console.is_terminal:
            print(f"l2v: {line}", file=sys.stderr, flush=True)  # noqa: T201

    logger.info(name, extra={"stage": name, "total_bytes": total})
    with bar:
        yield advance
