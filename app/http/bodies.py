"""Parses JSON bodies, and rejects costly ones by counting keys, strings, containers and values as a body arrives.

A parser's time and memory depend more on the number of values and keys than on bytes: 16 MB of text take 0.1 s to
parse, but 16 MB of keys take seconds and a gigabyte of memory. The parser holds the interpreter's lock meanwhile, so
all other requests wait.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from l2v.app.engine.errors import TooLargeError
from l2v.app.http.messages import check_encoding, from_parser

# How many keys, strings, and arrays and objects a body may have in addition to those of its inputs: the request's own
# fields, and objects like OpenAI's `metadata`.
_ALLOWANCE = 1024
# Maximum values in a body, enough for 2,048 lists of 512 token ids. Parsing this many values takes 0.1 s, and
# validating them another 0.1 s.
MAX_VALUES = 1_100_000
# Bytes of a body to inspect before other requests get a turn. After a longer body is parsed, they get one more turn.
SLICE = 262_144
# With more escapes than this, Python's parser takes half the time of pydantic's: 16 MB take 0.05 s rather than 0.13 s.
_MANY_ESCAPES = 262_144
# Above this mean number of digits between commas, a long body goes to Python's parser too. Pydantic's parser would hold
# the interpreter's lock for 0.2 s, since the time to read a number grows with the square of its length.
_MANY_DIGITS = 256
# Maximum digits of a number. No field needs longer numbers.
_MAX_DIGITS = 1000
# Maximum depth of arrays and objects: Python's default recursion limit.
_MAX_DEPTH = 1000
_IRRELEVANT = bytes(set(range(256)) - set(b'",:[]{}'))


class Structure:
    """Counts the keys, strings, containers and values of a body as it arrives, and tracks how deeply it is nested.

    Args:
        max_inputs: the maximum inputs of a request. Each input adds at most one object with two keys and two texts.
    """

    def __init__(self, max_inputs: int) -> None:
        self._limits = (
            (2 * max_inputs + _ALLOWANCE, "keys", "max_inputs"),
            (4 * max_inputs + 2 * _ALLOWANCE, "strings", "max_inputs"),
            (max_inputs + _ALLOWANCE, "arrays and objects", "max_inputs"),
            (MAX_VALUES, "values", "split it into several requests"),
        )
        self._counts, self._depth = [0, 0, 0, 0], 0
        self._in_string = self._escaping = False

    def feed(self, data: bytes) -> None:
        """Counts what `data` contains. Raises `TooLargeError` above a limit, `MalformedError` for deep nesting."""
        outside, strings = self._outside_strings(data)
        opened = outside.count(b"[") + outside.count(b"{")
        found = (outside.count(b":"), strings, opened, opened + outside.count(b","))
        for index, ((limit, what, reason), count) in enumerate(zip(self._limits, found, strict=True)):
            self._counts[index] += count
            if self._counts[index] > limit:
                raise TooLargeError(f"the body has more than {limit} {what} ({reason})", "body")
        self._nest(outside.translate(None, b",:"))

    def _nest(self, brackets: bytes) -> None:
        """Tracks the depth, up to a bracket that closes nothing. The parser stops at this bracket too."""
        for opens in map(b"[{".__contains__, brackets):
            if self._depth < 0:
                return
            self._depth += 1 if opens else -1
            if self._depth > _MAX_DEPTH:
                raise from_parser(RecursionError())

    def _outside_strings(self, data: bytes) -> tuple[bytes, int]:
        """The punctuation outside strings, and the number of strings that end."""
        if self._escaping and data:
            data, self._escaping = data[1:], False
        if b"\\" in data:
            data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
            self._escaping = data.endswith(b"\\")
        if self._in_string:
            data = b'"' + data
        strings = data.count(b'"') // 2
        # Two quotes without punctuation between them enclose nothing to count.
        parts = data.translate(None, _IRRELEVANT).replace(b'""', b"").split(b'"')
        self._in_string = len(parts) % 2 == 0
        return b"".join(parts[::2]), strings


async def parse(body: bytes) -> Any:
    """Parses JSON. Raises `MalformedError` if the body is not valid JSON."""
    check_encoding(body)
    if body.count(b"\\") <= _MANY_ESCAPES and not _has_long_numbers(body):
        with suppress(ValueError):
            return from_json(body, cache_strings="keys")
    # Python's parser is usually slower, but its errors say what is wrong. It also accepts lone surrogates and deep
    # nesting, which the schema then rejects with an error that names the field.
    try:
        return await asyncio.to_thread(json.loads, body, parse_int=_read_int, parse_float=_read_float)
    except (ValueError, RecursionError) as error:
        fault = from_parser(error)
    raise fault  # not inside `except`, where the error's context would keep the body in memory


def _has_long_numbers(body: bytes) -> bool:
    """Whether a long body may consist of long numbers, which take long to read."""
    if len(body) <= SLICE:
        return False
    digits = len(body) - len(body.translate(None, b"0123456789"))
    return digits > _MANY_DIGITS * (1 + body.count(b","))


# Functions written in Python, unlike `int` and `float`, let other threads run while a long list of numbers is parsed.
def _read_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError  # `int` has such a limit too, but at 4,300 digits, which take longer to read
    return int(digits)


def _read_float(digits: str) -> float:
    return float(digits)
