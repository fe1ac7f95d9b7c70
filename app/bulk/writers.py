"""Outputs: how rows with their vectors become bytes, appended block by block, and what the whole needs at its end."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import orjson

from l2v.app.bulk.errors import BulkError
from l2v.app.bulk.formats import OutputFormat
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.jobs import Vectors

if TYPE_CHECKING:
    import pyarrow as pa


class Writer(Protocol):
    """A format of the output."""

    def block(self, rows: Sequence[Row], vectors: Vectors) -> tuple[bytes, list[BadRow]]:
        """The bytes to append for rows with their vectors [n, d], and the rows that the format cannot hold."""

    def finish(self, data: Path, count: int) -> Path:
        """Makes the appended blocks a file of the format; gives its path."""


def open_writer(form: OutputFormat, data: Path, dimensions: int, types: "pa.Schema | None") -> Writer:
    """The writer that goes on with the file `data`, of which what stands there is whole."""
    if form == "parquet":
        from l2v.app.bulk.parquet import ParquetWriter

        return ParquetWriter(data, dimensions, types)
    return NpyWriter(data, dimensions) if form == "npy" else JsonlWriter()


class JsonlWriter:
    """One object a line: what was kept, then the vector."""

    def block(self, rows: Sequence[Row], vectors: Vectors) -> tuple[bytes, list[BadRow]]:
        lines = [
            to_line({**row.kept, "embedding": vector})
            for row, vector in zip(rows, np.ascontiguousarray(vectors), strict=True)
        ]
        return b"".join(lines), []

    def finish(self, data: Path, count: int) -> Path:
        data.touch()
        return data


class NpyWriter:
    """numpy's own format: a header, padded by numpy so that the count can be filled in at the end, then the numbers."""

    def __init__(self, data: Path, dimensions: int) -> None:
        self._dimensions = dimensions
        self._begun = data.exists() and data.stat().st_size > 0

    def block(self, rows: Sequence[Row], vectors: Vectors) -> tuple[bytes, list[BadRow]]:
        header = b"" if self._begun else self._header(0)
        self._begun = True
        return header + np.ascontiguousarray(vectors, "<f4").tobytes(), []

    def finish(self, data: Path, count: int) -> Path:
        data.touch()
        with data.open("r+b") as file:
            file.write(self._header(count))
        return data

    def _header(self, count: int) -> bytes:
        from io import BytesIO

        header = BytesIO()
        shape = (count, self._dimensions)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return header.getvalue()


def to_line(content: Any) -> bytes:
    """JSON and a line's end; values that JSON has no form for become text."""
    try:
        return orjson.dumps(content, default=_plain, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # lone surrogates, integers beyond 64 bits, keys that are no text
        return orjson.dumps(_mended(content), option=orjson.OPT_APPEND_NEWLINE)


def _plain(value: Any) -> Any:
    if hasattr(value, "as_py"):  # an Arrow scalar
        return _from_arrow(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)


def _from_arrow(scalar: Any) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except (ValueError, OverflowError):  # nanoseconds and years, which Python's datetime has no room for
        try:
            return scalar.cast(pa.string()).as_py()
        except pa.ArrowException:
            raise BulkError(f"a kept column of {scalar.type} has no form in JSONL: keep it in Parquet") from None


def _mended(value: Any) -> Any:
    if hasattr(value, "as_py"):
        return _mended(_plain(value))
    if isinstance(value, dict):
        return {_mended(str(key)): _mended(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mended(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and abs(value) < 1 << 63:
        return value
    return str(value).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
