"""Inputs: files and pipes, read row by row in bounded memory."""

import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from l2v.app.bulk import lines
from l2v.app.bulk.errors import CommandError, file_errors
from l2v.app.bulk.formats import InputFormat
from l2v.app.bulk.options import Columns
from l2v.app.bulk.rows import BadRow, Row, check_row

if TYPE_CHECKING:
    import pyarrow as pa

STDIN = "-"
_HEAD_BYTES = 1 << 20
_PARQUET_ROWS = 256


class RowSource(Protocol):
    """An input.

    Attributes:
        name: the name to use in messages.
        total: the size of the input in bytes, or in rows for Parquet; None if unknown.
        position: how much has been read, in the unit of `total`.
        identity: values by which a resumed run recognizes the input. `path` is `-` if the input can be read only once.
    """

    name: str
    total: int | None
    position: int
    identity: dict[str, Any]

    def rows(self, skip: int) -> Iterator[Row | BadRow]:
        """The rows after the first `skip` rows. The first row of the input has the number 1."""

    def types(self) -> "pa.Schema | None":
        """The Arrow types of the kept columns, in order; None if the input has no schema."""

    def close(self) -> None:
        """Close the file."""


def open_source(path: str, format_: InputFormat, columns: Columns) -> RowSource:
    """Open the input at `path`; `-` is standard input."""
    if format_ == "parquet":
        return ParquetSource(path, columns)
    return LineSource(path, {"text": lines.texts, "jsonl": lines.objects, "csv": lines.records}[format_], columns)


class LineSource:
    """A file of lines, or standard input, read once from start to end."""

    def __init__(
        self, path: str, parse: Callable[[Iterator[bytes], Columns], Iterator[Row | BadRow]], columns: Columns
    ) -> None:
        self.name = "standard input" if path == STDIN else path
        self.position = 0
        self._parse, self._columns = parse, columns
        self._stream: BinaryIO
        self.total: int | None = None
        self.identity: dict[str, Any] = {"path": path}
        if path == STDIN:
            self._stream = sys.stdin.buffer
        else:
            with file_errors("read", path):
                self._stream = Path(path).open("rb")  # noqa: SIM115 - `close` closes it
                if stat.S_ISREG(os.fstat(self._stream.fileno()).st_mode):
                    self.identity = _identity(Path(path))
                    self.total = self.identity["bytes"]
                else:
                    # A named pipe can be read only once, like standard input.
                    self.identity = {"path": STDIN}

    def rows(self, skip: int) -> Iterator[Row | BadRow]:
        with file_errors("read", self.name):
            try:
                yield from islice(self._parse(self._lines(), self._columns), skip, None)
            except lines.HeaderError as error:
                raise CommandError(f"{self.name} {error}") from None

    def types(self) -> "pa.Schema | None":
        if self._parse is lines.objects:
            return None
        import pyarrow as pa

        return pa.schema([(name, pa.string()) for name in self._columns.keep])

    def close(self) -> None:
        if self._stream is not sys.stdin.buffer:
            self._stream.close()

    def _lines(self) -> Iterator[bytes]:
        """The lines. A line that is too long is cut to one byte more than the maximum, so that parsers reject it."""
        while line := self._stream.readline(lines.LONGEST + 1):
            self.position += len(line)
            yield line
            while len(line) > lines.LONGEST and not line.endswith(b"\n"):
                line = self._stream.readline(lines.LONGEST + 1)
                self.position += len(line)
                if not line:
                    return


class ParquetSource:
    """A Parquet file. Only a few rows and one page per column are in memory at a time."""

    def __init__(self, path: str, columns: Columns) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name, self.position, self._columns = path, 0, columns
        with file_errors("read", path):
            try:
                self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
            except pa.ArrowInvalid:
                raise CommandError(f"{path} is not a complete Parquet file") from None
            self.identity = _identity(Path(path))
        self.total = self._file.metadata.num_rows
        present = self._file.schema_arrow.names
        if missing := [name for name in columns.names if name not in present]:
            raise CommandError(f"{path} {lines.no_column(missing[0], present)}")

    def rows(self, skip: int) -> Iterator[Row | BadRow]:
        groups, before = self._groups(skip)
        with file_errors("read", self.name):
            for batch in self._file.iter_batches(
                _PARQUET_ROWS, row_groups=groups, columns=self._columns.names, use_threads=False
            ):
                for row in self._rows(batch, before):
                    self.position = row.number
                    if row.number > skip:
                        yield row
                before += batch.num_rows

    def types(self) -> "pa.Schema | None":
        import pyarrow as pa

        fields = [self._file.schema_arrow.field(name) for name in self._columns.keep]
        return pa.schema([field.with_type(_without_dictionaries(field.type)) for field in fields])

    def close(self) -> None:
        self._file.close()

    def _groups(self, skip: int) -> tuple[list[int], int]:
        """The row groups that hold the rows after the first `skip`, and the number of rows before these groups."""
        metadata = self._file.metadata
        before, first = 0, 0
        while first < metadata.num_row_groups and before + metadata.row_group(first).num_rows <= skip:
            before += metadata.row_group(first).num_rows
            first += 1
        return list(range(first, metadata.num_row_groups)), before

    def _rows(self, batch: "pa.RecordBatch", before: int) -> Iterator[Row | BadRow]:
        # Kept values other than text and instruction stay Arrow scalars, so that a Parquet output gets them unchanged.
        arrays = {name: batch.column(name) for name in self._columns.names}
        values: dict[str, Any] = {name: array.cast(_without_dictionaries(array.type)) for name, array in arrays.items()}
        # `check_row` validates these columns.
        validated = [name for name in (self._columns.text, self._columns.instruction) if name]
        suspects = [name for name in self._columns.keep if name not in validated and not _is_valid(values[name])]
        for name in validated:
            values[name] = _texts(values[name])
        for index in range(batch.num_rows):
            row = {name: column[index] for name, column in values.items()}
            if broken := next((name for name in suspects if not _is_unicode(row[name])), None):
                yield BadRow(
                    before + index + 1, f"{broken} is not UTF-8", {self._columns.text: row[self._columns.text]}
                )
            else:
                yield check_row(before + index + 1, row, self._columns, row)


def _without_dictionaries(kind: "pa.DataType") -> "pa.DataType":
    """The type without dictionaries, also inside structs and lists.

    Batches may have different dictionaries, but an output has only one for each column.
    """
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_dictionaries(field.type)) for field in kind.fields])
    for is_kind, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_kind(kind):
            return make(kind.value_field.with_type(_without_dictionaries(kind.value_type)))
    return kind


def _is_valid(column: "pa.Array") -> bool:
    """Whether all text of a column is UTF-8. Parquet does not check this."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _is_unicode(value: Any) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    except (ValueError, OverflowError):
        pass  # a timestamp out of Python's range
    return True


def _texts(column: "pa.Array") -> list[Any]:
    """The values of a column as Python objects. Text is decoded here, since Arrow fails if it is not UTF-8."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return list(column.to_pylist())
    raw = column.cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in raw]


def _identity(path: Path) -> dict[str, Any]:
    """Values that identify a file, found without reading all of it."""
    status = path.stat()
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    size, modified = status.st_size, status.st_mtime_ns
    return {"path": str(path.resolve()), "bytes": size, "modified": modified, "sha256_of_head": head}
