"""Parsers of the line formats: pure functions from lines of bytes to rows."""

import csv
from collections.abc import Iterator, Sequence

import orjson

from l2v.app.bulk.options import Columns
from l2v.app.bulk.rows import BadRow, Row, check_row
from l2v.models.types import is_unicode

# Maximum bytes per line, so that a file without line breaks cannot fill the memory.
LONGEST = 1 << 24

_BOM = b"\xef\xbb\xbf"


class HeaderError(ValueError):
    """The input as a whole cannot be read."""


def no_column(missing: str, present: Sequence[str]) -> HeaderError:
    """The error for a missing column."""
    return HeaderError(f"has no column {missing!r}; it has {', '.join(present) or 'none'}")


def texts(lines: Iterator[bytes], columns: Columns) -> Iterator[Row | BadRow]:
    """Parse one text per line."""
    for number, line in enumerate(_whole(lines), 1):
        if line is None:
            yield BadRow(number, _too_long())
            continue
        text = _decode_stripped(line)
        yield check_row(number, {columns.text: text}, columns, text)


def objects(lines: Iterator[bytes], columns: Columns) -> Iterator[Row | BadRow]:
    """Parse one JSON object per line."""
    for number, line in enumerate(_whole(lines), 1):
        if line is None:
            yield BadRow(number, _too_long())
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield BadRow(number, f"is not valid JSON (column {error.colno})", _decode_stripped(line))
            continue
        if isinstance(value, dict):
            yield check_row(number, value, columns, value)
        else:
            yield BadRow(number, "is not a JSON object", value)


def records(lines: Iterator[bytes], columns: Columns) -> Iterator[Row | BadRow]:
    """Parse comma-separated values under a header. A record may span lines; empty lines between records don't count.

    Uses Python's reader, since Arrow's reader works on blocks. For a byte that is not UTF-8, or a record longer than a
    block, Arrow's reader rejects the whole block without naming the row.
    """
    csv.field_size_limit(LONGEST)
    # `map` continues after the error for a line that is too long; a generator would end at the error.
    reader = csv.reader(map(_decode_short, _without_bom(lines)), strict=True)
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise HeaderError(f"is not valid CSV: {error}") from None
    if not all(map(is_unicode, header)):
        raise HeaderError("is not UTF-8")
    if missing := [name for name in columns.names if name not in header]:
        raise no_column(missing[0], header)
    number = 0
    while True:
        number += 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(number, f"is not valid CSV: {error}")
            continue
        if not fields:
            number -= 1
        elif len(fields) != len(header):
            yield BadRow(number, f"has {len(fields)} fields, but the header has {len(header)}", fields)
        else:
            yield _record(number, dict(zip(header, fields, strict=True)), columns)


def _record(number: int, values: dict[str, str], columns: Columns) -> Row | BadRow:
    for name in columns.keep:
        if not is_unicode(values[name]):
            return BadRow(number, f"{name} is not UTF-8", values)
    return check_row(number, values, columns, values)


def _whole(lines: Iterator[bytes]) -> Iterator[bytes | None]:
    """The lines, with None in place of lines that are too long."""
    for line in _without_bom(lines):
        yield None if len(line) > LONGEST else line


def _without_bom(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines without the byte order mark that Windows programs put first."""
    first = next(lines, b"").removeprefix(_BOM)
    if first:
        yield first
    yield from lines


def _decode(line: bytes) -> str:
    """Decode a line. Bytes that are not UTF-8 become lone surrogates, which `check_row` rejects."""
    return line.decode("utf-8", "surrogateescape")


def _decode_short(line: bytes) -> str:
    if len(line) > LONGEST:
        raise csv.Error(f"a line {_too_long()}")
    return _decode(line)


def _decode_stripped(line: bytes) -> str:
    return _decode(line.removesuffix(b"\n").removesuffix(b"\r"))


def _too_long() -> str:
    return f"is longer than {LONGEST >> 20} MiB"
