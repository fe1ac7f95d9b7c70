"""What a run says while it goes, on standard error: a bar on a terminal, else a line now and then."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class Report(Protocol):
    """Told of each batch that is done."""

    def begin(self, position: int, total: int | None) -> None:
        """The run starts at `position` of `total`, in the input's unit."""

    def advance(self, position: int, rows: int, tokens: int) -> None:
        """The run has come to `position`, with so many rows and tokens more."""

    def note(self, message: str) -> None:
        """Something is being waited for; "" ends it. May be called from any thread."""


class Bar:
    """How far, how many rows, how fast, how long still."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rows]:,} rows"),
            TextColumn("{task.fields[speed]:,.0f} tokens/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.speed = Speed()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def begin(self, position: int, total: int | None) -> None:
        self.speed = Speed()
        self._task = self._progress.add_task("embedding", completed=position, total=total, rows=0, speed=0.0)

    def advance(self, position: int, rows: int, tokens: int) -> None:
        self.speed.add(rows, tokens)
        self._progress.update(self._task, completed=position, rows=self.speed.rows, speed=self.speed.tokens_per_second)

    def note(self, message: str) -> None:
        if message and not self._progress.task_ids:
            say(message)  # before there is a bar
        for task in self._progress.task_ids:
            self._progress.update(task, description=message or "embedding")


class Lines:
    """A line every ten seconds, for logs."""

    def __init__(self) -> None:
        self.speed = Speed()
        self._total: int | None = None
        self._said = self._noted = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def begin(self, position: int, total: int | None) -> None:
        self.speed, self._total = Speed(), total

    def advance(self, position: int, rows: int, tokens: int) -> None:
        self.speed.add(rows, tokens)
        if time.monotonic() - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said = time.monotonic()
        share = f"{100 * position / self._total:.0f} %, " if self._total else ""
        say(f"{share}{self.speed}")

    def note(self, message: str) -> None:
        if message and time.monotonic() - self._noted >= _SECONDS_BETWEEN_LINES:
            self._noted = time.monotonic()
            say(message)


class Speed:
    """Rows and tokens since it was made.

    Attributes:
        rows: all of them.
        tokens: all of them.
    """

    def __init__(self) -> None:
        self.rows = self.tokens = 0
        self._start = time.monotonic()

    def add(self, rows: int, tokens: int) -> None:
        self.rows += rows
        self.tokens += tokens

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(1e-9, time.monotonic() - self._start)

    def __str__(self) -> str:
        return f"{self.rows:,} rows, {self.tokens_per_second:,.0f} tokens/s"


def open_report() -> Bar | Lines:
    """A bar where standard error is a terminal."""
    return Bar() if sys.stderr.isatty() else Lines()


def say(line: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"l2v: {line}\n")
    sys.stderr.flush()
