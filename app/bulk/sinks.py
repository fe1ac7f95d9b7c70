"""Where rows go when they are done: to a file that appears when it is complete, or to standard output at once."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from l2v.app.bulk.appending import AppendedFile
from l2v.app.bulk.errors import BulkError, telling
from l2v.app.bulk.formats import OutputFormat
from l2v.app.bulk.partial import Partial, Progress
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.bulk.writers import JsonlWriter, open_writer, to_line
from l2v.app.engine.jobs import Vectors

if TYPE_CHECKING:
    import pyarrow as pa


class Sink(Protocol):
    """The output.

    Attributes:
        progress: how far the run has come, durable or not.
    """

    progress: Progress

    def add(self, last: int, rows: Sequence[Row], vectors: Vectors, bad: Sequence[BadRow]) -> list[BadRow]:
        """Takes a batch that ends with row `last`; sets aside `bad` and the rows that the format cannot hold.

        Where nothing may be set aside, takes nothing if there are such rows, and gives them back.
        """

    def commit(self) -> None:
        """Makes what was added durable."""

    def finish(self) -> None:
        """Completes the output."""


class FileSink:
    """A file, in the making under `OUTPUT.partial`."""

    def __init__(
        self, partial: Partial, form: OutputFormat, dimensions: int, types: "pa.Schema | None", bad_file: Path | None
    ) -> None:
        self.progress = partial.progress
        self._partial = partial
        with ExitStack() as stack:
            self._data = stack.enter_context(AppendedFile(partial.data, self.progress.data_bytes))
            self._bad = stack.enter_context(AppendedFile(bad_file, self.progress.bad_bytes)) if bad_file else None
            self._writer = open_writer(form, partial.data, dimensions, types)
            self._files = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def add(self, last: int, rows: Sequence[Row], vectors: Vectors, bad: Sequence[BadRow]) -> list[BadRow]:
        block, misfits = self._writer.block(rows, vectors)
        if misfits and not self._bad:
            return misfits
        self._data.write(block)
        _set_aside(self._bad, [*bad, *misfits])
        self.progress = Progress(
            rows=last,
            written=self.progress.written + len(rows) - len(misfits),
            data_bytes=self._data.size,
            bad=self.progress.bad + len(bad) + len(misfits),
            bad_bytes=self._bad.size if self._bad else 0,
        )
        return []

    def commit(self) -> None:
        self._data.sync()
        if self._bad:
            self._bad.sync()
        self._partial.commit(self.progress)

    def finish(self) -> None:
        self.commit()
        with telling("write", self._partial.output):
            finished = self._writer.finish(self._partial.data, self.progress.written)
        self._partial.publish(finished)


class StandardOutput:
    """Lines of JSON as they come; there is nothing to resume."""

    def __init__(self, bad_file: Path | None, *, overwrite: bool) -> None:
        self.progress = Progress()
        self._writer = JsonlWriter()
        if bad_file and bad_file.exists() and not overwrite:
            raise BulkError(f"{bad_file} exists already: name another file for bad rows, or say --overwrite")
        self._bad = AppendedFile(bad_file, 0) if bad_file else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bad:
            self._bad.close()

    def add(self, last: int, rows: Sequence[Row], vectors: Vectors, bad: Sequence[BadRow]) -> list[BadRow]:
        block, _ = self._writer.block(rows, vectors)
        with telling("write", "standard output"):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        _set_aside(self._bad, bad)
        self.progress = Progress(last, self.progress.written + len(rows), 0, self.progress.bad + len(bad))
        return []

    def commit(self) -> None:
        if self._bad:
            self._bad.sync()

    def finish(self) -> None:
        self.commit()


def _set_aside(file: AppendedFile | None, bad: Sequence[BadRow]) -> None:
    for row in sorted(bad, key=lambda row: row.number):
        assert file is not None  # else the run would have ended at the first
        file.write(to_line({"row": row.number, "reason": row.reason, "raw": row.raw}))
