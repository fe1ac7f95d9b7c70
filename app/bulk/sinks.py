"""Outputs: a file that appears when it is complete, or standard output."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from l2v.app.bulk.appending import AppendedFile
from l2v.app.bulk.errors import CommandError, file_errors
from l2v.app.bulk.formats import OutputFormat
from l2v.app.bulk.partial import Partial, RunProgress
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.bulk.settings import RunSettings
from l2v.app.bulk.writers import JsonlWriter, open_writer, to_line
from l2v.app.engine.output_types import Numbers, OutputDtype

if TYPE_CHECKING:
    import pyarrow as pa


class Sink(Protocol):
    """An output.

    Attributes:
        name: the name to use in messages.
        progress: the progress of the run, including rows that are not durable yet.
    """

    name: str
    progress: RunProgress

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def begin(self, job: dict[str, Any], dimensions: int, types: "pa.Schema | None") -> None:
        """Start the job, or resume it where an earlier run stopped.

        Args:
            job: the job's input, options and model, as `Partial.begin` takes them.
            dimensions: the number of dimensions of the vectors.
            types: the schema of the kept columns; None if the input has no schema.
        """

    def add(self, last: int, rows: Sequence[Row], vectors: Numbers, bad: Sequence[BadRow]) -> list[BadRow]:
        """Add a batch that ends with row `last`.

        Rows that the format cannot store go to the file of bad rows. Without a file of bad rows, this method returns
        these rows and adds nothing.
        """

    def commit(self) -> None:
        """Make everything added so far durable."""

    def finish(self) -> None:
        """Complete the output."""


def open_sink(settings: RunSettings) -> Sink:
    """The output of a run."""
    if settings.output == "-":
        return StandardOutput(settings.skip_bad, overwrite=settings.overwrite)
    partial = Partial(Path(settings.output), overwrite=settings.overwrite)
    return FileSink(partial, settings.sink_format, settings.output_dtype, settings.skip_bad)


class FileSink:
    """A file, written under `OUTPUT.partial` until it is complete."""

    def __init__(self, partial: Partial, format_: OutputFormat, dtype: OutputDtype, bad_file: Path | None) -> None:
        self.name = str(partial.output)
        self.progress = RunProgress()
        self._partial, self._format, self._dtype, self._bad_file = partial, format_, dtype, bad_file
        self._files = ExitStack()

    def __enter__(self) -> Self:
        self._files.enter_context(self._partial)
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def begin(self, job: dict[str, Any], dimensions: int, types: "pa.Schema | None") -> None:
        self._partial.begin(job, self._bad_file)
        self.progress = progress = self._partial.progress
        enter, bad_file = self._files.enter_context, self._bad_file
        self._data = enter(AppendedFile(self._partial.data, progress.data_bytes))
        self._bad = enter(AppendedFile(bad_file, progress.bad_bytes)) if bad_file else None
        self._writer = open_writer(self._format, self._partial.data, dimensions, self._dtype, types)

    def add(self, last: int, rows: Sequence[Row], vectors: Numbers, bad: Sequence[BadRow]) -> list[BadRow]:
        block, unfit = self._writer.block(rows, vectors)
        if unfit and not self._bad:
            return unfit
        self._data.write(block)
        _write_bad(self._bad, [*bad, *unfit])
        self.progress = RunProgress(
            rows=last,
            written=self.progress.written + len(rows) - len(unfit),
            data_bytes=self._data.size,
            bad=self.progress.bad + len(bad) + len(unfit),
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
        with file_errors("write", self._partial.output):
            finished = self._writer.finish(self._partial.data, self.progress.written)
        self._partial.publish(finished)


class StandardOutput:
    """JSON lines on standard output. A run that writes to standard output cannot be resumed."""

    name = "standard output"

    def __init__(self, bad_file: Path | None, *, overwrite: bool) -> None:
        if bad_file and bad_file.exists() and not overwrite:
            raise CommandError(f"{bad_file} already exists: choose another file for bad rows or pass --overwrite")
        self.progress = RunProgress()
        self._writer = JsonlWriter()
        self._bad_file = bad_file
        self._bad: AppendedFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bad:
            self._bad.close()

    def begin(self, job: dict[str, Any], dimensions: int, types: "pa.Schema | None") -> None:
        self._bad = AppendedFile(self._bad_file, 0) if self._bad_file else None

    def add(self, last: int, rows: Sequence[Row], vectors: Numbers, bad: Sequence[BadRow]) -> list[BadRow]:
        block, _ = self._writer.block(rows, vectors)
        with file_errors("write", self.name):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
        _write_bad(self._bad, bad)
        self.progress = RunProgress(last, self.progress.written + len(rows), 0, self.progress.bad + len(bad))
        return []

    def commit(self) -> None:
        if self._bad:
            self._bad.sync()

    def finish(self) -> None:
        self.commit()


def _write_bad(file: AppendedFile | None, bad: Sequence[BadRow]) -> None:
    for row in sorted(bad, key=lambda row: row.number):
        assert file is not None  # without a file, the first bad row has ended the run
        file.write(to_line({"row": row.number, "reason": row.reason, "raw": row.raw}))
