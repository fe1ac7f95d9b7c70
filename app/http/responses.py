"""JSON responses that are written and sent in chunks, so that large ones don't block the event loop.

A response of 2,048 vectors of 4,096 numbers has 100 MB. Written at once, it would delay every other request.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from l2v.app.engine.vectors import Rows, Vectors

# Numbers per chunk; writing them takes about 3 ms.
_CHUNK_NUMBERS = 65_536
# Minimum bytes per chunk sent; each costs a system call here and one at the client.
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ChunkedList:
    """A JSON list that may be long.

    Attributes:
        length: the number of items.
        width: the approximate size of an item, in numbers.
        items: returns the items from one position up to another, as orjson takes them.
    """

    length: int
    width: int
    items: Callable[[int, int], Any]

    @classmethod
    def of(cls, rows: Sequence[Any] | Rows, width: int) -> "ChunkedList":
        return cls(len(rows), width, lambda start, stop: rows[start:stop])


def encoded(vectors: Vectors, encoding: Literal["float", "base64"] | None) -> ChunkedList:
    """The rows of [n, d] as lists of numbers, or as base64 of their little-endian float32 numbers."""

    def base64_items(start: int, stop: int) -> list[str]:
        return [base64.b64encode(row.tobytes()).decode() for row in vectors[start:stop].astype("<f4", copy=False)]

    rows = ChunkedList.of(vectors, vectors.shape[1])
    return ChunkedList(rows.length, rows.width, base64_items) if encoding == "base64" else rows


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
            await send({"type": "http.response.body", "body": chunk, "more_body": bool(self._chunks)})


async def json_response(content: Any) -> Response:
    """Writes JSON. `content` may be a `ChunkedList`, or a dict or list that holds some; arrays may be anywhere."""
    chunks, pending = [], bytearray()
    async for part in _write(content):
        pending += part
        if len(pending) >= _CHUNK_BYTES:
            chunks.append(bytes(pending))
            pending.clear()
    return ChunkedResponse([*chunks, bytes(pending)])


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
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
