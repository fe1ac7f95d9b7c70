"""JSON responses that are written and sent in chunks, so that large responses don't block the event loop.

A response with 2,048 vectors of 4,096 numbers takes 100 MB. Writing it in one go would delay all other requests.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from l2v.app.engine.output_types import Numbers, OutputDtype, stored_width
from l2v.app.engine.vectors import Rows, Vectors, top_k

Encoding = Literal["float", "base64"]
# Numbers per chunk; writing them takes about 3 ms.
_CHUNK_NUMBERS = 65_536
# The most bytes that orjson writes for a float32 and the comma after it, as for -0.0000063184107.
NUMBER_BYTES = 17
# The most bytes that orjson writes for an 8-bit integer and the comma after it, as for -128.
_INTEGER_BYTES = 5
# The most bytes that a response has for a vector in addition to its numbers (index, number of tokens, field names), and
# for a match in addition to its score.
_ITEM_BYTES, _MATCH_BYTES = 100, 30
# The most bytes of a token that is shown with its id, its text and its position.
TOKEN_BYTES = 100
# Maximum bytes per message to uvicorn, which accepts the next message once most of the previous message is sent.
_SENT_BYTES = 262_144
# Minimum bytes per chunk. Sending a chunk costs one system call here and one system call at the client.
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ChunkedList:
    """A JSON list that may be long.

    Attributes:
        length: the number of items.
        width: the approximate size of an item, in numbers.
        items: returns the items from one position up to another, in a form that orjson can write.
    """

    length: int
    width: int
    items: Callable[[int, int], Any]

    @classmethod
    def of(cls, rows: Sequence[Any] | Rows, width: int) -> "ChunkedList":
        return cls(len(rows), width, lambda start, stop: rows[start:stop])


def encoded(vectors: Numbers, encoding: Encoding) -> ChunkedList:
    """The rows of [n, d] as lists of numbers, or as base64 of their little-endian numbers."""

    def base64_items(start: int, stop: int) -> list[str]:
        little = vectors.dtype.newbyteorder("<")
        return [base64.b64encode(row).decode() for row in vectors[start:stop].astype(little, copy=False)]

    rows = ChunkedList.of(vectors, vectors.shape[1])
    return ChunkedList(rows.length, rows.width, base64_items) if encoding == "base64" else rows


def matches(matrix: Vectors, k: int) -> ChunkedList:
    """The `k` best columns of each row of [q, n], as `{"index", "score"}` objects."""
    # Write the text straight from the arrays: a dict for each match takes many times the memory, and twice the time.
    heads = np.array([b'{"index":%d,"score":' % column for column in range(matrix.shape[1])], object)

    def match_list(columns: NDArray[np.int64], scores: Vectors) -> orjson.Fragment:
        parts = [b""] * (2 * len(columns))
        parts[::2] = heads[columns].tolist()
        parts[1::2] = _dumps(scores)[1:-1].replace(b",", b"},\n").split(b"\n")
        return orjson.Fragment(b"[%b}]" % b"".join(parts))

    def items(start: int, stop: int) -> list[orjson.Fragment]:
        return [match_list(*row) for row in zip(*top_k(matrix[start:stop], k), strict=True)]

    # Sorting a row and writing its matches takes about as long as writing four times the row's numbers.
    return ChunkedList(len(matrix), 4 * matrix.shape[1], items)


def vector_bytes(dimensions: int, encoding: Encoding = "float", dtype: OutputDtype = "float") -> int:
    """The most bytes that a vector takes in a response, including the JSON around it."""
    numbers, floats = stored_width(dimensions, dtype), dtype == "float"
    if encoding == "base64":
        return 4 * ((4 if floats else 1) * numbers // 3 + 1) + _ITEM_BYTES
    return (NUMBER_BYTES if floats else _INTEGER_BYTES) * numbers + _ITEM_BYTES


def text_bytes(text: str) -> int:
    """The most bytes that a text takes in a response: in JSON, a control character takes six bytes."""
    return 6 * len(text) + _ITEM_BYTES


def match_bytes(count: int) -> int:
    """The most bytes that the matches of one query take in a response."""
    return (NUMBER_BYTES + _MATCH_BYTES) * count + _ITEM_BYTES


class ChunkedResponse(Response):
    """A JSON response that is sent chunk by chunk, no faster than the client reads it."""

    media_type = "application/json"

    def __init__(self, chunks: list[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self.headers["content-length"] = str(sum(map(len, chunks)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._chunks.reverse()
        while self._chunks:
            chunk = self._chunks.pop()  # free the memory of chunks that have been sent
            for end in range(_SENT_BYTES, len(chunk) + _SENT_BYTES, _SENT_BYTES):
                more = end < len(chunk) or bool(self._chunks)
                await send({"type": "http.response.body", "body": chunk[end - _SENT_BYTES : end], "more_body": more})


async def json_response(content: Any, warning: str = "") -> Response:
    """Writes JSON, and a header `Warning` if `warning` is not empty.

    `content` may be a `ChunkedList`, or a dict or list that contains such lists. Numpy arrays may be anywhere in
    `content`.
    """
    small = _numbers(content) <= _CHUNK_NUMBERS
    response = ChunkedResponse([_dumps(content)]) if small else await joined_response(_write(content))
    if warning:
        response.headers["Warning"] = f'299 - "{warning}"'  # 299: a persistent warning of no specific kind
    return response


async def joined_response(parts: AsyncIterator[bytes]) -> Response:
    """A response of parts that form one JSON document. Small parts are joined."""
    chunks, pending = [], bytearray()
    async for part in parts:
        pending += part
        if len(pending) >= _CHUNK_BYTES:
            chunks.append(bytes(pending))
            pending.clear()
    if pending:
        chunks.append(bytes(pending))
    return ChunkedResponse(chunks)


def _numbers(content: Any) -> int:
    """How many numbers the chunked lists in `content` hold, approximately."""
    if isinstance(content, ChunkedList):
        return content.length * content.width
    if isinstance(content, dict):
        return sum(map(_numbers, content.values()))
    items = content if isinstance(content, list) else ()
    return sum(item.length * item.width for item in items if isinstance(item, ChunkedList))


async def _write(value: Any) -> AsyncIterator[bytes]:
    if isinstance(value, ChunkedList):
        step = max(1, _CHUNK_NUMBERS // max(1, value.width))
        yield b"["
        for start in range(0, value.length, step):
            yield (b"," if start else b"") + _dumps(value.items(start, min(start + step, value.length)))[1:-1]
            await asyncio.sleep(0)
        yield b"]"
    elif (isinstance(value, dict) and value) or (
        isinstance(value, list) and isinstance(next(iter(value), 0), ChunkedList)
    ):
        separator, end = (b"{", b"}") if isinstance(value, dict) else (b"[", b"]")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield separator + (_dumps(key) + b":" if isinstance(value, dict) else b"")
            async for part in _write(item):
                yield part
            separator = b","
        yield end
    else:
        yield _dumps(value)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, default=_whole, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS)


def _whole(value: Any) -> Any:
    if isinstance(value, ChunkedList):
        return value.items(0, value.length)
    raise TypeError
