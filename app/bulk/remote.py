"""The engine elsewhere: a running service, several requests at a time, their order kept."""

import base64
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import anyio
import numpy as np
import orjson
from anyio.from_thread import start_blocking_portal

from l2v.app.bulk.client import TOO_LARGE, TOO_LONG, Client, RefusedError
from l2v.app.bulk.engines import Embedded, Options
from l2v.app.bulk.errors import BulkError
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.jobs import Vectors

_INPUT = re.compile(r"inputs\[(\d+)\]")


class RemoteEngine:
    """Sends batches to `POST /embed`, at most `concurrency` at once."""

    def __init__(
        self,
        url: str,
        key: str | None,
        options: Options,
        concurrency: int,
        patience: float,
        note: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.window = 2 * concurrency
        self.info: dict[str, Any] = {}
        self._client = Client(url, key, patience, note)
        self._concurrency = concurrency
        self._most = sys.maxsize  # rows of a request, as far as it is known
        self._pending: set[Future[Embedded]] = set()
        fields = {
            "instruction": options.instruction,
            "prompt_name": options.prompt_name,
            "dimensions": options.dimensions,
        }
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._fields |= {"normalize": options.normalize, "encoding_format": "base64"}
        self._dimensions = options.dimensions

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.callback(self._portal.call, self._client.close)
            self._limit = self._portal.call(anyio.CapacityLimiter, self._concurrency)
            try:
                self.info = self._portal.call(self._client.call, "GET", "info")
            except RefusedError as error:
                raise BulkError(f"{self._client.name} gives no information: {error}") from None
            if not isinstance(self.info, dict) or "dimensions" not in self.info:
                raise BulkError(f"{self._client.name} does not answer as l2v does")
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in list(self._pending):
            future.cancel()  # requests in flight are given up
        self._open.close()

    def submit(self, rows: Sequence[Row]) -> "Future[Embedded]":
        future = self._portal.start_task_soon(self._embed, rows)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    async def _embed(self, rows: Sequence[Row]) -> Embedded:
        """Embeds what the service takes of the rows; those that it refuses by name are left out."""
        good, bad = list(rows), list[BadRow]()
        while good:
            if len(good) > self._most:
                return _joined([await self._embed(half) for half in _halves(good)], bad)
            try:
                async with self._limit:
                    answer = await self._client.call("POST", "embed", self._body(good), divisible=len(good) > 1)
            except RefusedError as error:
                if error.status == TOO_LONG:
                    # So will others of its size, for now.
                    self._most = min(self._most, len(good) // 2)
                    continue
                if error.status == TOO_LARGE and len(good) > 1:
                    return _joined([await self._embed(half) for half in _halves(good)], bad)
                bad.append(good.pop(self._culprit(error, good)).bad(str(error)))
            else:
                if len(good) == self._most:
                    self._most += 1  # little by little, since a batch that fails has cost its time
                return self._read(answer, good, bad)
        return Embedded([], np.zeros((0, self._dimensions or self.info["dimensions"]), np.float32), bad, 0)

    def _body(self, rows: Sequence[Row]) -> bytes:
        inputs = [
            {"text": row.text} if row.instruction is None else {"text": row.text, "instruction": row.instruction}
            for row in rows
        ]
        return orjson.dumps({"inputs": inputs, **self._fields})

    def _culprit(self, error: RefusedError, rows: Sequence[Row]) -> int:
        """The position of the row that the service finds at fault."""
        found = _INPUT.match(error.param or "")
        if found and int(found[1]) < len(rows):
            return int(found[1])
        if error.status == TOO_LARGE:
            return 0  # alone, since the others were sent without it
        place = f" ({error.param})" if error.param else ""
        raise BulkError(f"{self._client.name} refuses with {error.status}: {error}{place}") from None

    def _read(self, answer: Any, rows: Sequence[Row], bad: list[BadRow]) -> Embedded:
        try:
            vectors: Vectors = np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in answer["embeddings"]])
            tokens = sum(answer["tokens"])
            model, width = answer["model"], answer["dimensions"]
        except (ValueError, KeyError, TypeError):
            raise BulkError(f"{self._client.name} does not answer as l2v does") from None
        if len(vectors) != len(rows):
            raise BulkError(f"{self._client.name} gives {len(vectors)} vectors for {len(rows)} rows")
        if (model, width) != (self.info["model"], self._dimensions or self.info["dimensions"]):
            # It was waited for while it started anew.
            raise BulkError(f"{self._client.name} now serves another model ({model}) than when the run began")
        return Embedded(rows, vectors, bad, tokens)


def _halves(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


def _joined(parts: Sequence[Embedded], bad: list[BadRow]) -> Embedded:
    return Embedded(
        [row for part in parts for row in part.rows],
        np.concatenate([part.vectors for part in parts]),
        bad + [row for part in parts for row in part.bad],
        sum(part.tokens for part in parts),
    )
