"""Long responses are serialised in chunks and are still one valid document."""

import asyncio
import json

import numpy as np
import pytest
from starlette.types import Message

from l2v.app.http.responses import NUMBER_BYTES, ChunkedList, encoded, json_response, match_bytes, matches, vector_bytes


def sent(content: object) -> tuple[dict[str, str], list[bytes]]:
    """Returns (headers, chunks) of a response."""
    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def serve() -> None:
        await (await json_response(content))({"type": "http"}, None, send)  # type: ignore[arg-type]

    asyncio.run(serve())
    headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
    return headers, [message["body"] for message in messages[1:]]


ROWS = np.arange(600 * 512, dtype=np.float32).reshape(600, 512)


@pytest.mark.parametrize(
    ("content", "read"),
    [
        (
            {"model": "m", "embeddings": ChunkedList.of(ROWS, 512), "tokens": [1]},
            {"model": "m", "embeddings": ROWS, "tokens": [1]},
        ),
        (ChunkedList.of(ROWS, 512), ROWS),
        ([ChunkedList.of(ROWS[:3], 512), ChunkedList.of(ROWS[3:], 512)], [ROWS[:3], ROWS[3:]]),
        (
            {"data": ChunkedList.of([{"index": i, "embedding": row} for i, row in enumerate(ROWS)], 512)},
            {"data": [{"index": i, "embedding": row} for i, row in enumerate(ROWS)]},
        ),
        (ChunkedList.of(["a", "é"], 1), ["a", "é"]),
        (ChunkedList.of(ROWS[:0], 512), []),
        (
            {"results": matches(-ROWS, 3)},
            {"results": [[{"index": i, "score": float(-row[i])} for i in range(3)] for row in ROWS]},
        ),
        (
            {"results": matches(ROWS[:2, :4], 9)},
            {"results": [[{"index": i, "score": float(row[i])} for i in (3, 2, 1, 0)] for row in ROWS[:2, :4]]},
        ),
        ({}, {}),
        ([], []),
    ],
)
def test_the_chunks_form_one_document(content: object, read: object) -> None:
    headers, chunks = sent(content)
    body = b"".join(chunks)
    assert json.loads(body) == json.loads(json.dumps(read, default=np.ndarray.tolist))
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(body)


def test_other_tasks_run_between_the_chunks() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def both() -> None:
        other = asyncio.create_task(count_turns())
        await json_response({"embeddings": ChunkedList.of(ROWS, 512)})
        other.cancel()

    asyncio.run(both())
    assert turns >= 4
    assert max(map(len, sent(ChunkedList.of(ROWS, 512))[1])) < 2_000_000


def test_no_response_is_larger_than_what_is_reserved_for_it() -> None:
    patterns = np.random.default_rng(0).integers(0, 2**32, 1_000_000, dtype=np.uint64).astype(np.uint32)
    numbers = patterns.view(np.float32)
    numbers = np.append(numbers[np.isfinite(numbers)], np.float32(-0.0000063184107))[-900_000:]
    longest = max(map(len, b"".join(sent(ChunkedList.of(numbers, 1))[1])[1:-1].split(b",")))
    assert longest + 1 == NUMBER_BYTES
    row = np.full((1, 1001), -0.0000063184107, np.float32)
    for encoding in ("float", "base64"):
        assert len(sent(encoded(row, encoding))[1][0]) <= vector_bytes(1001, encoding)  # type: ignore[arg-type]
    assert len(sent(matches(row, 1001))[1][0]) <= match_bytes(1001)
