"""What a line is in each format: pure functions from lines of bytes to rows."""

import csv
from collections.abc import Iterator, Sequence

import orjson

from l2v.app.bulk.rows import BadRow, Columns, Row, checked
from l2v.models.types import is_unicode

# Bytes of one line, so that a file without line ends does not fill the memory.
LONGEST = 1 << 24

_BOM = b"\xef\xbb\xbf"


class HeaderError(ValueError):
    """The input as a whole is not what it was said to be."""


def no_column(missing: str, present: Sequence[str]) -> HeaderError:
    """The input lacks a column."""
    return HeaderError(f"has no column {missing!r}; it has {', '.join(present) or 'none'}")


def texts(lines: Iterator[bytes], columns: Columns) -> Iterator[Row | BadRow]:
    """One text a line."""
    for number, line in enumerate(_whole(lines), 1):
        if line is None:
            yield BadRow(number, _too_long())
            continue
        text = _stripped(line)
        yield checked(number, {columns.text: text}, columns, text)


def objects(lines: Iterator[bytes], columns: Columns) -> Iterator[Row | BadRow]:
    """One JSON object a line."""
    for number, line in enumerate(_whole(lines), 1):
        if line is None:
            yield BadRow(number, _too_long())
            continue
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield BadRow(number, f"is not valid JSON (column {error.colno})", _stripped(line))
            continue
        if isinstance(value, dict):
            yield checked(number, value, columns, value)
        else:
            yield BadRow(number, "is not a JSON object", value)


def records(lines: Iterator[bytes], columns: Columns) -> Iterator[Row | BadRow]:
    """Comma-separated values under a header; a record may span lines, and blank lines between records do not count.

    Python's reader rather than Arrow's, which takes a block at a time: one byte that is no UTF-8, or one record that is
    longer than a block, fails the block, and no row can be named.
    """
    csv.field_size_limit(LONGEST)
    # Not a generator, which would end with the error of a line that is too long.
    reader = csv.reader(map(_short, _first_without_mark(lines)), strict=True)
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
            yield BadRow(number, f"has {len(fields)} fields, and the header {len(header)}", fields)
        else:
            yield _record(number, dict(zip(header, fields, strict=True)), columns)


def _record(number: int, values: dict[str, str], columns: Columns) -> Row | BadRow:
    for name in columns.keep:
        if not is_unicode(values[name]):
            return BadRow(number, f"{name} is not UTF-8", values)
    return checked(number, values, columns, values)


def _whole(lines: Iterator[bytes]) -> Iterator[bytes | None]:
    """The lines, None for those that are too long."""
    for line in _first_without_mark(lines):
        yield None if len(line) > LONGEST else line


def _first_without_mark(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The lines without the byte order mark that Windows programs put first."""
    first = next(lines, b"").removeprefix(_BOM)
    if first:
        yield first
    yield from lines


def _decoded(line: bytes) -> str:
    """Text, in which bytes that are no UTF-8 stand as lone surrogates, which `checked` refuses."""
    return line.decode("utf-8", "surrogateescape")


def _short(line: bytes) -> str:
    if len(line) > LONGEST:
        raise csv.Error(f"a line {_too_long()}")
    return _decoded(line)


def _stripped(line: bytes) -> str:
    return _decoded(line.removesuffix(b"\n").removesuffix(b"\r"))


def _too_long() -> str:
    return f"is longer than {LONGEST >> 20} MiB"
