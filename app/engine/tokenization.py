"""Tokenizes short requests on the event loop, longer requests in threads, and bulk requests in separate threads."""

import asyncio
import os
from asyncio import Semaphore
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from anyio import to_thread
from numpy.typing import NDArray

from l2v.app.engine.errors import InvalidError, TooLargeError, TooLongError
from l2v.app.engine.inputs import InputGroup, param_at
from l2v.app.engine.profile import Profile
from l2v.app.engine.served_models import ServedModel
from l2v.app.settings import Settings
from l2v.models import Encoding, InputError
from l2v.models.roles import Token, describe

T = TypeVar("T")
R = TypeVar("R")

# Inputs per chunk. A request with more inputs is a bulk request. Bulk requests take turns in their own threads, so that
# they delay no short request and leave most cores to the forward passes.
_CHUNK = 64
# The typical ratio in English prose.
_BYTES_PER_TOKEN = 4
# Python's strings have up to four bytes per character.
_BYTES_PER_CHARACTER = 4
# Tokenizing this many characters takes less time than starting work in another thread.
_INLINE_CHARACTERS = 1000


class TokenizerPool:
    """Converts texts to token ids and back, within the limits of the settings.

    Attributes:
        workers: the number of threads for requests that are not bulk requests.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.workers = min(4, os.cpu_count() or 1)
        self._threads = Semaphore(self.workers)
        self._bulk_threads = Semaphore(max(1, self.workers // 2))

    async def encode(
        self, model: ServedModel, groups: Sequence[InputGroup], *, truncate: bool, max_tokens: int | None = None
    ) -> list[list[Encoding]]:
        """Returns one encoding per input of each group, for the model.

        Texts that may be rejected are tokenized in steps, so that a rejection costs little. Each step takes about as
        many texts as all previous steps together. If `truncate` is false, the apparently longest texts come first.

        Args:
            model: the model whose tokenizer is used.
            groups: the inputs.
            truncate: whether to truncate texts that are too long rather than reject them.
            max_tokens: maximum tokens of all inputs together, if each token gets a vector; None means no limit.

        Raises:
            InvalidError: the model cannot encode an input.
            TooLargeError: the inputs have more than `max_tokens` tokens.
            TooLongError: a text is too long, and `truncate` is false.
        """
        encoder, inputs = model.profile, [input_ for group in groups for input_ in group.inputs]
        order, tokens, limits = list(range(len(inputs))), 0, encoder.tokenization
        too_long = (
            f"text has more than {limits.doc_max_length} tokens (doc_max_length), or more than "
            f"{limits.max_length} with its instruction (max_length); truncate is false"
        )
        small = len(inputs) <= _CHUNK and sum(len(i.text) + len(i.instruction) for i in inputs) <= _INLINE_CHARACTERS
        stepwise = not small and (not truncate or max_tokens is not None)
        if not truncate:
            order.sort(key=lambda position: -_apparent_size(inputs[position].text))

        def tokenize(positions: Sequence[int]) -> list[Encoding]:
            nonlocal tokens
            done: list[Encoding] = []
            while len(done) < len(positions):
                part = positions[len(done) : 2 * len(done) + 1 if stepwise else None]
                try:
                    encodings = encoder.tokenize([inputs[position] for position in part], truncate=truncate)
                except InputError as error:
                    raise InvalidError(str(error), param_at(groups, part[error.index], error.field)) from error
                if not truncate and (shortened := truncated(encodings)):
                    raise TooLongError(too_long, param_at(groups, part[shortened[0]], "text"))
                if max_tokens is not None and (tokens := tokens + sum(map(len, encodings))) > max_tokens:
                    message = (
                        f"more than {max_tokens} tokens, which is the limit if each token gets a vector "
                        "(max_batch_tokens)"
                    )
                    raise TooLargeError(message, groups[0].name)
                done += encodings
            return done

        if small:
            found = tokenize(order)
        else:
            found = [encoding async for chunk in self._chunks(tokenize, order) for encoding in chunk]
        by_position = dict(zip(order, found, strict=True))
        positions = iter(range(len(inputs)))
        return [[by_position[next(positions)] for _ in group.inputs] for group in groups]

    def show(
        self,
        encoder: Profile,
        group: InputGroup,
        render: Callable[[Iterator[Any]], T],
        *,
        special: bool,
        reserve: Callable[[int], None],
    ) -> AsyncIterator[T]:
        """Tokenizes inputs without template and truncation, for display. Returns an iterator over the results.

        Args:
            encoder: the encoder whose tokenizer is used.
            group: the inputs.
            render: a function that converts the tokens of one input. It runs in a thread, and only its result is kept.
            special: whether to add special tokens.
            reserve: a function that gets an upper bound of the number of tokens before any work is done. It may raise
                an error to reject the request.

        Raises:
            InvalidError: an input has too many characters.
            TooLargeError: there are too many inputs, or they may have more than `max_queue_tokens` tokens.
        """
        self.check_sizes([group])
        # Each byte may be a token. Special tokens are added below.
        size = sum(len(input_.text.encode()) + len(input_.instruction.encode()) for input_ in group.inputs)
        if size > (limit := self._settings.max_queue_tokens):
            message = f"the texts may have {size} tokens, one per byte; the maximum is {limit} (max_queue_tokens)"
            raise TooLargeError(message, group.name)
        reserve(size + len(group.inputs) * (encoder.tokenization.leading + encoder.tokenization.trailing))
        return self._map(lambda input_: render(encoder.tokenization.show(input_, special=special)), group.inputs)

    async def describe(
        self, encoder: Profile, group: InputGroup, encodings: Sequence[Encoding], render: Callable[[Iterator[Token]], T]
    ) -> list[T]:
        """What `render` makes of each input's tokens, as the model gets them. `render` runs in a thread."""
        pairs = list(zip(group.inputs, encodings, strict=True))
        return [made async for made in self._map(lambda pair: render(describe(encoder.tokenization, *pair)), pairs)]

    async def decode(
        self,
        encoder: Profile,
        items: Sequence[str | list[int]],
        param: Callable[[int], str],
        *,
        skip_special: bool,
        reserve: Callable[[int], None],
    ) -> list[str]:
        """Decodes lists of token ids to texts. Items that are texts stay as they are.

        Args:
            encoder: the encoder whose tokenizer is used.
            items: texts or lists of token ids.
            param: a function that returns the path of the item at a position, like `ids[3]`.
            skip_special: whether to leave special tokens out of the texts.
            reserve: a function that gets an upper bound of the bytes that the texts take in memory. It may raise an
                error to reject the request.

        Raises:
            InvalidError: a list is too long, or holds an id that the model does not have.
            TooLargeError: the texts may exceed `max_body_bytes`, since one token may stand for a hundred characters.
        """
        rows = [(index, ids) for index, ids in enumerate(items) if not isinstance(ids, str)]
        tokenization, size, limit = encoder.tokenization, 0, self._settings.max_body_bytes

        def check(row: tuple[int, list[int]]) -> None:
            nonlocal size
            index, ids = row
            size += int(tokenization.lengths[self._check_ids(ids, len(tokenization.lengths), param(index))].sum())
            if size > limit:
                message = f"the ids may stand for more than {limit} characters (max_body_bytes)"
                raise TooLargeError(message, param(index))

        def decode(row: tuple[int, list[int]]) -> str:
            # `decode_batch` releases the GIL; the tokenizer's method `decode` does not.
            return str(tokenization.tokenizer.decode_batch([row[1]], skip_special_tokens=skip_special)[0])

        async for _ in self._map(check, rows):
            pass  # check all ids first, since decoding takes ten times as long
        reserve(_BYTES_PER_CHARACTER * size)
        decoded = iter([text async for text in self._map(decode, rows)])
        return [item if isinstance(item, str) else next(decoded) for item in items]

    def check_count(self, count: int, *names: str) -> None:
        """Raises `TooLargeError` if the named fields hold too many inputs."""
        if count > (limit := self._settings.max_inputs):
            together = f" in {' and '.join(names)}" if len(names) > 1 else ""
            raise TooLargeError(f"{count} inputs{together}; the maximum is {limit} (max_inputs)", names[0])

    def check_sizes(self, groups: Sequence[InputGroup]) -> None:
        """Raises `TooLargeError` for too many inputs, `InvalidError` for an input that is too long."""
        self.check_count(sum(len(group.inputs) for group in groups), *(group.name for group in groups))
        limit = self._settings.max_characters
        for group in groups:
            for index, input_ in enumerate(group.inputs):
                for field in ("text", "instruction"):
                    if (length := len(getattr(input_, field))) > limit:
                        message = f"{field} has {length} characters; the maximum is {limit} (max_characters)"
                        raise InvalidError(message, group.param(index, field))

    def _check_ids(self, ids: list[int], vocabulary: int, param: str) -> NDArray[np.int64]:
        if len(ids) > (limit := self._settings.max_characters):
            raise InvalidError(f"{len(ids)} token ids; the maximum is {limit} (max_characters)", param)
        if max(ids) >= vocabulary:  # checked before numpy gets the ids, since its integers have 64 bits
            raise InvalidError(f"{max(ids)} is not a token id of the model", param)
        array = np.array(ids)
        if array.min() < 0:
            raise InvalidError("must be at least 0", f"{param}[{np.argmax(array < 0)}]")
        return array

    async def _map(self, function: Callable[[T], R], items: Sequence[T]) -> AsyncIterator[R]:
        """Applies `function` to each item, in threads."""
        async for chunk in self._chunks(lambda chunk: [function(item) for item in chunk], items):
            for result in chunk:
                yield result

    async def _chunks(self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> AsyncIterator[list[R]]:
        """Processes one chunk after another, so that the remaining chunks of a cancelled request are skipped."""
        threads = self._bulk_threads if len(items) > _CHUNK else self._threads
        for start in range(0, len(items), _CHUNK):
            yield await _in_thread(threads, function, items[start : start + _CHUNK])


async def _in_thread(threads: Semaphore, function: Callable[[Sequence[T]], R], items: Sequence[T]) -> R:
    """Calls `function` in a thread. If the caller is cancelled, the thread counts among `threads` until it ends."""

    def ended(thread: asyncio.Task[R]) -> None:
        threads.release()
        if not thread.cancelled():
            thread.exception()  # else asyncio logs the errors of cancelled callers

    await threads.acquire()
    thread = asyncio.create_task(to_thread.run_sync(function, items))
    thread.add_done_callback(ended)
    return await asyncio.shield(thread)


def truncated(encodings: Sequence[Encoding]) -> list[int]:
    """The positions of the encodings that were truncated."""
    return [index for index, encoding in enumerate(encodings) if encoding.truncated]


def _apparent_size(text: str) -> int:
    """A number that grows with the number of tokens: a token has about four bytes, and a word is at least one token."""
    return max(len(text.encode()), _BYTES_PER_TOKEN * text.count(" "))
