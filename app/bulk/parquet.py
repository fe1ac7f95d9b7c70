"""The Parquet output.

A Parquet file has its index at the end, so an unfinished file cannot be continued. Blocks are therefore appended to an
Arrow stream, which can be continued. At the end, the blocks are copied into the row groups of a Parquet file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.output_types import NUMPY, Numbers, OutputDtype

EMBEDDING = "embedding"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_GROUP_BYTES = 16 << 20


class ParquetWriter:
    """Writes the kept columns with their types, and the column `embedding` of fixed-size lists of numbers."""

    def __init__(self, data: Path, width: int, dtype: OutputDtype, types: pa.Schema | None) -> None:
        self._width, self._number, self._types = width, pa.from_numpy_dtype(np.dtype(NUMPY[dtype])), types
        self._schema: pa.Schema | None = None
        if data.exists() and data.stat().st_size > 0:
            with pa.OSFile(str(data)) as file:
                self._schema = pa.ipc.open_stream(file).schema

    def block(self, rows: Sequence[Row], vectors: Numbers) -> tuple[bytes, list[BadRow]]:
        if not rows:
            return b"", []
        header = b""
        if self._schema is None:
            self._schema = self._schema_for(rows)
            _check_writable(self._schema)
            header = self._schema.serialize().to_pybytes()
        bad = {}
        if self._has_mismatch(rows):
            bad = {row.number: row.bad(reason) for row in rows if (reason := self._mismatch(row))}
        good = [index for index, row in enumerate(rows) if row.number not in bad]
        numbers = pa.array(np.ascontiguousarray(vectors[good]).reshape(-1))
        columns = [
            *(_to_array([rows[i].kept[name] for i in good], self._schema.field(name).type) for name in self._kept),
            pa.FixedSizeListArray.from_arrays(numbers, self._width),
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        return header + batch.serialize().to_pybytes(), list(bad.values())

    def finish(self, data: Path, count: int) -> Path:
        out = data.with_name("output")
        schema = self._schema or self._schema_for([])
        with pq.ParquetWriter(out, schema, compression="zstd", use_dictionary=schema.names[:-1]) as writer:
            if self._schema is not None:
                with data.open("ab") as file:
                    file.write(_END_OF_STREAM)
                _copy(data, writer)
        return out

    @property
    def _kept(self) -> list[str]:
        assert self._schema is not None
        return [name for name in self._schema.names if name != EMBEDDING]

    def _schema_for(self, rows: Sequence[Row]) -> pa.Schema:
        """The output's schema: the kept columns, typed as in the input or else by the first rows, and the vectors."""
        if self._types is not None:
            kept = list(self._types)
        else:
            names = rows[0].kept if rows else ()
            kept = [pa.field(name, _type_of([row.kept[name] for row in rows])) for name in names]
        return pa.schema([*kept, pa.field(EMBEDDING, pa.list_(self._number, self._width))])

    def _has_mismatch(self, rows: Sequence[Row]) -> bool:
        """Whether a kept value does not fit the type of its column. The values of an input with a schema always fit."""
        assert self._schema is not None
        return self._types is None and not all(
            _fits([row.kept[name] for row in rows], self._schema.field(name).type) for name in self._kept
        )

    def _mismatch(self, row: Row) -> str | None:
        assert self._schema is not None
        for name in self._kept:
            kind = self._schema.field(name).type
            if not _fits([row.kept[name]], kind):
                return f"{name} must be {kind}, as in earlier rows"
        return None


def _check_writable(schema: pa.Schema) -> None:
    """Raise `CommandError` for a column that Parquet cannot store. Call this before the first row is written."""
    for field in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowException:
            raise CommandError(f"Parquet cannot store the column {field.name} ({field.type}): write JSONL") from None


def _to_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_nested(kind) and any(isinstance(value, pa.Scalar) for value in values):
        # Arrow cannot build an array from list scalars if some are null.
        return pa.concat_arrays([pa.repeat(value, 1) for value in values])
    return pa.array(values, kind)


def _copy(data: Path, writer: pq.ParquetWriter) -> None:
    """Copy the blocks into row groups of about `_GROUP_BYTES`."""
    waiting: list[pa.RecordBatch] = []
    with pa.OSFile(str(data)) as file:
        for batch in pa.ipc.open_stream(file):
            waiting.append(batch)
            if sum(part.nbytes for part in waiting) >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
    if waiting:
        writer.write_table(pa.Table.from_batches(waiting))


def _type_of(values: list[Any]) -> pa.DataType:
    """The common type of the values, else the type of the first value, else text."""
    present = [value for value in values if value is not None]
    for some in (present, present[:1]):
        try:
            # Arrow infers no type for integers beyond 63 bits.
            large = any(type(value) is int and value >> 63 > 0 for value in some)
            kind = pa.array(some, pa.uint64() if large else None).type
        except (pa.ArrowException, OverflowError):
            continue
        if not pa.types.is_null(kind):
            return kind
    return pa.string()


def _fits(values: list[Any], kind: pa.DataType) -> bool:
    try:
        pa.array(values, kind)
        # `pa.array` drops the fraction of a float without an error.
        if pa.types.is_integer(kind) and any(isinstance(value, float) and not value.is_integer() for value in values):
            return False
        # Arrow silently drops fields that the column's type lacks.
        return not pa.types.is_nested(kind) or _within(pa.array(values).type, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False


def _within(found: pa.DataType, kind: pa.DataType) -> bool:
    """Whether `kind` has all fields of `found`, at any depth. Text does not count as a list of characters."""
    if pa.types.is_null(found):
        return True
    if pa.types.is_struct(kind):
        return pa.types.is_struct(found) and all(
            kind.get_field_index(field.name) >= 0 and _within(field.type, kind.field(field.name).type)
            for field in found.fields
        )
    if pa.types.is_list(kind):
        return pa.types.is_list(found) and _within(found.value_type, kind.value_type)
    return True
