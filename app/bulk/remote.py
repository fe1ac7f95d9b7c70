"""Embeds rows through a running service, with several requests at a time."""

import base64
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Self
from urllib.parse import quote

import anyio
import numpy as np
import orjson
from anyio.from_thread import start_blocking_portal

from l2v.app.bulk.client import TOO_LARGE, TOO_LONG, Client, RejectedError
from l2v.app.bulk.embedders import EmbeddedRows, identity
from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.engine.output_types import NUMPY, Numbers, stored_width

_INPUT = re.compile(r"inputs\[(\d+)\]")


class RemoteEmbedder:
    """Sends batches to `POST /embed`, at most `concurrency` requests at a time."""

    def __init__(
        self,
        url: str,
        key: str | None,
        model: str | None,
        options: EmbedOptions,
        concurrency: int,
        retry_for: float,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.window = 2 * concurrency
        self.info: dict[str, Any] = {}
        self._client = Client(url, key, retry_for, note)
        self._concurrency = concurrency
        self._max_rows = sys.maxsize  # the maximum per request, lowered when a request takes too long
        self._pending: set[Future[EmbeddedRows]] = set()
        self._model = model
        fields = asdict(options) | {"encoding_format": "base64", "model": model}
        if options.output_dtype == "float":
            del fields["output_dtype"]  # older services don't know this field
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._dimensions, self._dtype = options.dimensions, options.output_dtype

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            stack.callback(self._portal.call, self._client.close)
            self._limit = self._portal.call(anyio.CapacityLimiter, self._concurrency)
            try:
                self.info = self._portal.call(self._current_info)
            except RejectedError as error:
                raise self._rejection(error) from None
            self._open = stack.pop_all()
        return self

    @property
    def warning(self) -> str:
        return self._client.warning

    def __exit__(self, *_: object) -> None:
        for future in list(self._pending):
            future.cancel()
        self._open.close()

    def submit(self, rows: Sequence[Row]) -> "Future[EmbeddedRows]":
        future = self._portal.start_task_soon(self._embed, rows)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return the JSON of the response. Raises `CommandError` if the service rejects it."""
        try:
            return self._portal.call(self._client.call, method, path, None if body is None else orjson.dumps(body))
        except RejectedError as error:
            raise self._rejection(error) from None

    async def _current_info(self) -> dict[str, Any]:
        """The properties of the model that requests choose."""
        info: Any = await self._client.call("GET", "info")
        if not isinstance(info, dict) or "dimensions" not in info:
            raise CommandError(f"{self._client.name} is not an l2v service")
        if self._model is None:
            return info
        await self._client.call("GET", f"v1/models/{quote(self._model)}")  # fails if there is no such model
        # An additional name of the base has no entry.
        return info | next((dict(each) for each in info.get("models", ()) if each["model"] == self._model), {})

    async def _check_unchanged(self) -> None:
        """Raises `CommandError` if the service came back with another model under the same name."""
        current, started = identity(await self._current_info()), identity(self.info)
        if differing := ", ".join(name for name in started if current[name] != started[name]):
            raise CommandError(
                f"{self._client.name} now serves a different model ({differing}) than when the run started: start the "
                "former model again and repeat the command, or start over with --overwrite"
            )

    async def _embed(self, rows: Sequence[Row]) -> EmbeddedRows:
        """Embed the rows. If the service's error names the position of a row, this row becomes a bad row."""
        good, bad = list(rows), list[BadRow]()
        while good:
            if len(good) > self._max_rows:
                return _joined([await self._embed(half) for half in _halves(good)], bad)
            try:
                async with self._limit:
                    answer = await self._client.call(
                        "POST", "embed", self._body(good), divisible=len(good) > 1, on_return=self._check_unchanged
                    )
            except RejectedError as error:
                if error.status == TOO_LONG:
                    # For now, other requests of this size are likely to take too long as well.
                    self._max_rows = min(self._max_rows, len(good) // 2)
                    continue
                if error.status == TOO_LARGE and len(good) > 1:
                    return _joined([await self._embed(half) for half in _halves(good)], bad)
                bad.append(good.pop(self._culprit(error, good)).bad(str(error)))
            else:
                if len(good) == self._max_rows:
                    self._max_rows += 1  # raise it slowly, since a request that takes too long is wasted
                return self._read(answer, good, bad)
        width = stored_width(self._dimensions or self.info["dimensions"], self._dtype)
        return EmbeddedRows([], np.zeros((0, width), NUMPY[self._dtype]), bad, 0)

    def _body(self, rows: Sequence[Row]) -> bytes:
        inputs = [
            {"text": row.text} if row.instruction is None else {"text": row.text, "instruction": row.instruction}
            for row in rows
        ]
        return orjson.dumps({"inputs": inputs, **self._fields})

    def _culprit(self, error: RejectedError, rows: Sequence[Row]) -> int:
        """The position of the row that the service rejects. Raises `CommandError` if the rows are not at fault."""
        found = _INPUT.match(error.param or "")
        if found and int(found[1]) < len(rows):
            return int(found[1])
        if error.status == TOO_LARGE:
            return 0  # the only row
        raise self._rejection(error) from None

    def _rejection(self, error: RejectedError) -> CommandError:
        param = f" ({error.param})" if error.param else ""
        return CommandError(f"{self._client.name} rejects the request with {error.status}: {error}{param}")

    def _read(self, answer: Any, rows: Sequence[Row], bad: list[BadRow]) -> EmbeddedRows:
        try:
            kind = NUMPY[self._dtype]
            vectors: Numbers = np.stack([np.frombuffer(base64.b64decode(row), kind) for row in answer["embeddings"]])
            tokens = sum(answer["tokens"])
            model, width = answer["model"], answer["dimensions"]
        except (ValueError, KeyError, TypeError):
            raise CommandError(f"{self._client.name} returned an unexpected response") from None
        if len(vectors) != len(rows):
            raise CommandError(f"{self._client.name} returned {len(vectors)} vectors for {len(rows)} rows")
        if (model, width) != (self.info["model"], self._dimensions or self.info["dimensions"]):
            # The service was restarted with another model while the run waited for it.
            raise CommandError(f"{self._client.name} now serves a different model ({model}) than when the run started")
        return EmbeddedRows(rows, vectors, bad, tokens)


def _halves(rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


def _joined(parts: Sequence[EmbeddedRows], bad: list[BadRow]) -> EmbeddedRows:
    return EmbeddedRows(
        [row for part in parts for row in part.rows],
        np.concatenate([part.vectors for part in parts]),
        bad + [row for part in parts for row in part.bad],
        sum(part.tokens for part in parts),
    )
