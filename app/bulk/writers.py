"""Output formats: they turn rows and vectors into blocks of bytes to append, and complete the file at the end."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.formats import OutputFormat
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.output_types import NUMPY, Numbers, OutputDtype, stored_width

if TYPE_CHECKING:
    import pyarrow as pa


class Writer(Protocol):
    """Writes one output format."""

    def block(self, rows: Sequence[Row], vectors: Numbers) -> tuple[bytes, list[BadRow]]:
        """The bytes to append for rows and their vectors [n, width], and the rows that the format cannot store."""

    def finish(self, data: Path, count: int) -> Path:
        """Complete the file of appended blocks. Returns the path of the result."""


def open_writer(
    format_: OutputFormat, data: Path, dimensions: int, dtype: OutputDtype, types: "pa.Schema | None"
) -> Writer:
    """The writer for a format. Its blocks are appended to `data`, which holds whole blocks, is empty, or is missing."""
    width = stored_width(dimensions, dtype)
    if format_ == "parquet":
        from l2v.app.bulk.parquet import ParquetWriter

        return ParquetWriter(data, width, dtype, types)
    return NpyWriter(data, width, dtype) if format_ == "npy" else JsonlWriter()


class JsonlWriter:
    """One JSON object per line: the kept values, then the vector."""

    def block(self, rows: Sequence[Row], vectors: Numbers) -> tuple[bytes, list[BadRow]]:
        lines = [
            to_line({**row.kept, "embedding": vector})
            for row, vector in zip(rows, np.ascontiguousarray(vectors), strict=True)
        ]
        return b"".join(lines), []

    def finish(self, data: Path, count: int) -> Path:
        data.touch()
        return data


class NpyWriter:
    """numpy's format. numpy pads the header, so that the row count can be filled in at the end."""

    def __init__(self, data: Path, width: int, dtype: OutputDtype) -> None:
        self._width, self._type = width, NUMPY[dtype]
        self._started = data.exists() and data.stat().st_size > 0

    def block(self, rows: Sequence[Row], vectors: Numbers) -> tuple[bytes, list[BadRow]]:
        header = b"" if self._started else self._header(0)
        self._started = True
        return header + np.ascontiguousarray(vectors, self._type).tobytes(), []

    def finish(self, data: Path, count: int) -> Path:
        data.touch()
        with data.open("r+b") as file:
            file.write(self._header(count))
        return data

    def _header(self, count: int) -> bytes:
        from io import BytesIO

        header = BytesIO()
        layout = {"descr": self._type, "fortran_order": False, "shape": (count, self._width)}
        np.lib.format.write_array_header_1_0(header, layout)
        return header.getvalue()


def to_line(content: Any) -> bytes:
    """A line of JSON. Values without a JSON type become text."""
    try:
        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(content, default=_to_json_type, option=options)
    except TypeError:  # lone surrogates, integers beyond 64 bits, keys that are not text
        return orjson.dumps(_to_json_types(content), option=orjson.OPT_APPEND_NEWLINE)


def _to_json_type(value: Any) -> Any:
    if hasattr(value, "as_py"):  # an Arrow scalar
        return _from_arrow(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _from_arrow(scalar: Any) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # nanoseconds, or years out of the range of Python's datetime
        try:
            return scalar.cast(pa.string()).as_py()
        except pa.ArrowException:
            raise CommandError(f"JSONL cannot store a column of type {scalar.type}: write Parquet") from None


def _to_json_types(value: Any) -> Any:
    if hasattr(value, "as_py"):
        return _to_json_types(_to_json_type(value))
    if isinstance(value, dict):
        return {_to_json_types(str(key)): _to_json_types(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json_types(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
