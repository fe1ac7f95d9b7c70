"""Parquet as an output.

Its index stands at the end of the file, so a file that was cut off cannot be continued. The blocks are therefore
appended as an Arrow stream, which can, and become row groups when all are there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from l2v.app.bulk.errors import BulkError, UsageError
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.jobs import Vectors

EMBEDDING = "embedding"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_GROUP_BYTES = 16 << 20


class ParquetWriter:
    """What was kept, with its types, and the column `embedding` of fixed-size lists of float32."""

    def __init__(self, data: Path, dimensions: int, types: pa.Schema | None) -> None:
        if types is not None and EMBEDDING in types.names:
            raise UsageError(f"the output has a column {EMBEDDING} of its own: it cannot keep one of that name")
        self._dimensions, self._types = dimensions, types
        self._schema: pa.Schema | None = None
        if data.exists() and data.stat().st_size > 0:
            with pa.OSFile(str(data)) as file:
                self._schema = pa.ipc.open_stream(file).schema

    def block(self, rows: Sequence[Row], vectors: Vectors) -> tuple[bytes, list[BadRow]]:
        if not rows:
            return b"", []
        header = b""
        if self._schema is None:
            self._schema = self._schema_for(rows)
            _check_writable(self._schema)
            header = self._schema.serialize().to_pybytes()
        bad = (
            {row.number: row.bad(reason) for row in rows if (reason := self._misfit(row))} if self._loose(rows) else {}
        )
        good = [index for index, row in enumerate(rows) if row.number not in bad]
        numbers = pa.array(np.ascontiguousarray(vectors[good]).reshape(-1))
        columns = [
            *(_column([rows[i].kept[name] for i in good], self._schema.field(name).type) for name in self._kept),
            pa.FixedSizeListArray.from_arrays(numbers, self._dimensions),
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
        """The kept columns with the input's types, or with those of the first rows where the input has none."""
        if self._types is not None:
            kept = list(self._types)
        else:
            names = rows[0].kept if rows else ()
            kept = [pa.field(name, _type_of([row.kept[name] for row in rows])) for name in names]
        return pa.schema([*kept, pa.field(EMBEDDING, pa.list_(pa.float32(), self._dimensions))])

    def _loose(self, rows: Sequence[Row]) -> bool:
        """Whether some kept value does not fit the type of its column, which those of a typed input all do."""
        assert self._schema is not None
        return self._types is None and not all(
            _fits([row.kept[name] for row in rows], self._schema.field(name).type) for name in self._kept
        )

    def _misfit(self, row: Row) -> str | None:
        assert self._schema is not None
        for name in self._kept:
            kind = self._schema.field(name).type
            if not _fits([row.kept[name]], kind):
                return f"{name} must be {kind}, as in the rows before"
        return None


def _check_writable(schema: pa.Schema) -> None:
    """Before anything is embedded, rather than when all is."""
    for field in schema:
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowException:
            raise BulkError(f"Parquet has no form for {field.name}, which is {field.type}: keep it in JSONL") from None


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_nested(kind) and any(isinstance(value, pa.Scalar) for value in values):
        # Of scalars, Arrow makes no array where lists among them are null.
        return pa.concat_arrays([pa.repeat(value, 1) for value in values])
    return pa.array(values, kind)


def _copy(data: Path, writer: pq.ParquetWriter) -> None:
    """Blocks → row groups of about `_GROUP_BYTES`."""
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
    """The type of all values, else of the first that has one; text where none has."""
    present = [value for value in values if value is not None]
    for some in (present, present[:1]):
        try:
            # Beyond 63 bits Arrow guesses none.
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
        # Arrow would cut what stands behind the point.
        if pa.types.is_integer(kind) and any(isinstance(value, float) and not value.is_integer() for value in values):
            return False
        # What a column of objects has no field for, Arrow leaves out without a word.
        return not pa.types.is_nested(kind) or _within(pa.array(values).type, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return False


def _within(found: pa.DataType, kind: pa.DataType) -> bool:
    """Whether each field of a type, at any depth, is one of the column's, and no text passes for a list of letters."""
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
