"""The messages between the engine and a front end: a small header, then the numbers as they lie in memory.

Both ends are processes of one service on one machine, so numbers keep the machine's byte order.
"""

import struct
from array import array
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from enum import IntEnum, auto

import numpy as np

from l2v.app.engine.jobs import Result
from l2v.app.engine.vectors import Vectors
from l2v.models.types import Encoding

# Kind of the message, number of its job, request or change (0 if none), and length of the body.
_HEADER = struct.Struct("=BQQ")
# Seconds queued, seconds computed, and number of arrays.
_RESULT = struct.Struct("=ddI")
# Messages up to this size are sent as one piece; copying them is faster than sending pieces.
_JOINED_BYTES = 65_536
# Written in place of the number of rows if an array has one dimension.
_VECTOR = -1
Part = bytes | memoryview
# About how many unread bytes an end buffers before the other end has to wait.
STREAM_LIMIT = 1 << 20


class Kind(IntEnum):
    """Kinds of messages."""

    # From a front end:
    SUBMIT = auto()  # the encodings of a job
    CANCEL = auto()  # nobody waits for the job any more
    SCRAPE = auto()  # asks for the metrics
    OPENED = auto()  # the front end can accept requests
    CHANGED = auto()  # the front end has done what `ADD` or `HIDE` says
    LOAD = auto()  # asks to load an adapter: its name and path, as a JSON list
    UNLOAD = auto()  # asks to unload an adapter: its name, as a JSON list
    # From the engine:
    OPEN = auto()  # the encoder is loaded: a pickled `Opening`, to be answered with `OPENED`
    ADD = auto()  # requests may choose an adapter: a pickled `ServedModel`, to be answered with `CHANGED`
    HIDE = auto()  # hides an adapter (id and name) from new requests; answered with `CHANGED` once no request uses it
    DONE = auto()  # the adapter is loaded or unloaded
    REJECTED = auto()  # a job, or a change of the adapters, fails: a pickled error
    DRAIN = auto()  # finish the accepted requests, then end
    DOWN = auto()  # the engine is down, and why
    RESULT = auto()  # the vectors of a job
    FAILED = auto()  # the model fails on an encoding: its position, and why
    REFUSED = auto()  # the engine accepts no jobs, and why
    METRICS = auto()  # the metrics in Prometheus' text format


def send(writer: StreamWriter, kind: Kind, number: int = 0, parts: Sequence[Part] = ()) -> None:
    """Queues a message to be sent, unless the other end is gone."""
    if writer.transport.is_closing():
        return
    size = sum(map(len, parts))
    header = _HEADER.pack(kind, number, size)
    if size <= _JOINED_BYTES:
        writer.write(b"".join([header, *parts]))
    else:
        writer.writelines([header, *parts])


async def receive(reader: StreamReader) -> tuple[Kind, int, bytes]:
    """The next message: its kind, its number and its body.

    Raises:
        EOFError, OSError: the other end is gone.
    """
    kind, number, size = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    return Kind(kind), number, await reader.readexactly(size) if size else b""


def pack_encodings(encodings: Sequence[Encoding]) -> list[Part]:
    numbers = array("i", map(len, encodings))
    numbers.extend(encoding.pooled for encoding in encodings)
    numbers.extend(encoding.adapter for encoding in encodings)
    return [struct.pack("=I", len(encodings)) + numbers.tobytes(), *(each.ids.tobytes() for each in encodings)]


def unpack_encodings(body: bytes) -> list[Encoding]:
    (count,) = struct.unpack_from("=I", body)
    numbers = array("i")
    start = 4 + 3 * count * numbers.itemsize
    numbers.frombytes(body[4:start])
    encodings = []
    for length, pooled, adapter in zip(*(numbers[i * count : (i + 1) * count] for i in range(3)), strict=True):
        ids = array("q")
        stop = start + length * ids.itemsize
        ids.frombytes(body[start:stop])
        encodings.append(Encoding(ids, pooled, adapter=adapter))
        start = stop
    return encodings


def pack_result(result: Result) -> list[Part]:
    shapes = array("i")
    for vectors in result.vectors:
        shapes.extend(vectors.shape if vectors.ndim > 1 else (_VECTOR, len(vectors)))
    header = _RESULT.pack(result.queued, result.computed, len(result.vectors)) + shapes.tobytes()
    return [header, *(vectors.ravel().view(np.uint8).data for vectors in result.vectors)]


def unpack_result(body: bytes) -> Result:
    queued, computed, count = _RESULT.unpack_from(body)
    shapes = array("i")
    start = _RESULT.size + 2 * count * shapes.itemsize
    shapes.frombytes(body[_RESULT.size : start])
    rows: list[Vectors] = []
    for height, width in zip(shapes[::2], shapes[1::2], strict=True):
        size = width if height == _VECTOR else height * width
        vectors = np.frombuffer(body, np.float32, size, start)
        rows.append(vectors if height == _VECTOR else vectors.reshape(height, width))
        start += vectors.nbytes
    return Result(rows, queued, computed)
