"""Progress on standard error: a bar on a terminal, otherwise a line every ten seconds."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_SECONDS_BETWEEN_LINES = 10.0


class Report:
    """The progress of one run. Rows from earlier runs count as done, but not towards the speed or the time left.

    Args:
        total: the size of the input in the source's unit (bytes or rows); None if unknown.

    Attributes:
        bar: a context manager that shows the bar while active, on terminals only.
        resumed: the number of rows from earlier runs.
    """

    def __init__(self, total: int | None) -> None:
        on_terminal = sys.stderr.isatty()
        columns = TextColumn("{task.description}"), BarColumn(bar_width=20), TaskProgressColumn(), TimeElapsedColumn()
        left = TextColumn("left"), TimeRemainingColumn()
        self.bar = Progress(*columns, *left, console=Console(stderr=True), disable=not on_terminal)
        self.bar.add_task("embedding", start=False, total=total)
        (self._task,) = self.bar.tasks
        self.resumed = self._rows = self._tokens = 0
        self._next_line = 0.0 if on_terminal else time.monotonic() + _SECONDS_BETWEEN_LINES

    def begin(self, position: int) -> None:
        """Start the clock. The input has been read up to `position`."""
        self.bar.reset(self._task.id, completed=position)

    def advance(self, position: int, rows: int, tokens: int) -> None:
        """Record that more rows and tokens are done, and that the run has reached `position`."""
        self._rows += rows
        self._tokens += tokens
        self.bar.update(self._task.id, completed=position)
        self.bar.update(self._task.id, description=self.speed)
        self._line(f"{self._task.percentage:.0f} %, {self.speed}" if self._task.total else self.speed)

    def note(self, message: str) -> None:
        """Show why the run waits; "" means that it no longer waits. May be called from any thread."""
        self.bar.update(self._task.id, description=message or self.speed)
        if message:
            self._line(message)

    @property
    def speed(self) -> str:
        seconds = max(1e-9, self._task.elapsed or 0)
        return f"{self.resumed + self._rows:,}{self._total} rows, {self._tokens / seconds:,.0f} tokens/s"

    @property
    def _total(self) -> str:
        """The number of all rows, estimated from the part of the input that has been read."""
        task, done = self._task, self.resumed + self._rows
        if not task.total or not done or not 0 < task.completed < task.total:
            return ""
        return f"/~{round(done * task.total / task.completed):,}"

    def _line(self, line: str) -> None:
        """Print a line, unless a bar is shown or the last line is less than ten seconds old."""
        if not self.bar.live.is_started and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES
            print_line(line)


def print_line(line: str) -> None:
    """Print one line to standard error."""
    sys.stderr.write(f"l2v: {line}\n")
    sys.stderr.flush()
