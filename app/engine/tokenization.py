"""Where inputs become encodings: few in the event loop, more in threads, very many in threads of their own."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from l2v.app.engine.inputs import Side
from l2v.app.http.errors import InvalidError
from l2v.models import Encoder, Encoding, InputError

T = TypeVar("T")
R = TypeVar("R")

# Inputs tokenised at a stretch. A request of more is long: it takes turns with others such, in threads of their own, so
# that no short one waits for them, and they leave most of the cores to the forward passes.
_AT_ONCE = 64
# Characters that are tokenised sooner than another thread begins.
_FEW_CHARACTERS = 1000


class Tokenizers:
    """The threads, and the choice between them.

    Attributes:
        workers: threads for requests that are not long.
    """

    def __init__(self) -> None:
        self.workers = min(4, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(self.workers, "tokenize")
        self._long_threads = ThreadPoolExecutor(max(1, self.workers // 2), "tokenize-long")

    async def tokenize(self, encoder: Encoder, side: Side) -> list[Encoding]:
        """One encoding an input; raises `InvalidError` for one that the model cannot take."""
        encodings: list[Encoding] = []
        few = len(side.inputs) <= _AT_ONCE
        try:
            if few and sum(len(i.text) + len(i.instruction) for i in side.inputs) <= _FEW_CHARACTERS:
                return encoder.tokenize(side.inputs)
            async for stretch in self._stretches(encoder.tokenize, side.inputs):
                encodings += stretch
        except InputError as error:
            raise InvalidError(str(error), side.param(len(encodings) + error.index, error.field)) from error
        return encodings

    async def run(self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
        """What `function` makes of the items."""
        return [made async for stretch in self._stretches(function, items) for made in stretch]

    def close(self) -> None:
        """Gives up what waits."""
        for threads in (self._threads, self._long_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _stretches(
        self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T]
    ) -> AsyncIterator[list[R]]:
        """Some at a time: of a request that is given up the rest is not looked at."""
        threads = self._long_threads if len(items) > _AT_ONCE else self._threads
        for start in range(0, len(items), _AT_ONCE):
            yield await asyncio.get_running_loop().run_in_executor(threads, function, items[start : start + _AT_ONCE])
