"""The body of an answer: JSON, the long lists in it written and sent in pieces, so that others have their turn.

An answer of 2,048 vectors of 4,096 numbers is 100 MB. In one piece it holds up every other request for as long as its
numbers are written and its bytes are copied about.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from l2v.app.engine.jobs import Vectors

# Numbers that are written at a stretch: some 3 ms.
_PIECE = 65_536
# Bytes that are sent at a stretch, at least: each time costs a system call here and one at the client.
_SENT = 65_536


@dataclass(frozen=True, slots=True)
class Long:
    """A list that may be long.

    Attributes:
        rows: what orjson writes, [n, …].
        width: how many numbers a row has, about.
    """

    rows: Sequence[Any] | Vectors
    width: int


class Pieces(Response):
    """A response whose body is sent piece by piece, no faster than the client takes it."""

    media_type = "application/json"

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self.headers["content-length"] = str(sum(map(len, pieces)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        self._pieces.reverse()
        while self._pieces:  # what is sent is not kept
            piece = self._pieces.pop()
            await send({"type": "http.response.body", "body": piece, "more_body": bool(self._pieces)})


async def to_json(content: Any) -> Response:
    """A JSON response. `Long` may stand in `content` itself, as a value of it or as an element; arrays anywhere."""
    pieces, short = [], bytearray()
    async for part in _write(content):
        short += part
        if len(short) >= _SENT:
            pieces.append(bytes(short))
            short.clear()
    return Pieces([*pieces, bytes(short)])


async def _write(value: Any) -> AsyncIterator[bytes]:
    if isinstance(value, Long):
        step = max(1, _PIECE // max(1, value.width))
        yield b"["
        for start in range(0, len(value.rows), step):
            yield (b"," if start else b"") + _dumps(value.rows[start : start + step])[1:-1]
            await asyncio.sleep(0)
        yield b"]"
    elif isinstance(value, dict) and value:
        opening = b"{"
        for key, item in value.items():
            yield opening + _dumps(key) + b":"
            async for piece in _write(item):
                yield piece
            opening = b","
        yield b"}"
    elif isinstance(value, list) and value and isinstance(value[0], Long):
        opening = b"["
        for item in value:
            yield opening
            async for piece in _write(item):
                yield piece
            opening = b","
        yield b"]"
    else:
        yield _dumps(value)


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
