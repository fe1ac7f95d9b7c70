"""Tokenization in threads: short requests on the event loop, longer ones in a pool, bulk requests in their own pool."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from l2v.app.engine.errors import InvalidError, TooLargeError, TooLongError
from l2v.app.engine.inputs import InputGroup, estimate_tokens
from l2v.app.engine.profile import Profile
from l2v.app.engine.served_models import ServedModel
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.models import Encoding, Input, InputError

T = TypeVar("T")
R = TypeVar("R")

# Inputs per chunk. A request with more inputs is a bulk request. Bulk requests take turns in their own threads, so that
# they delay no short request and leave most cores to the forward passes.
_CHUNK = 64
# Tokenizing this many characters takes less time than starting work in another thread.
_INLINE_CHARACTERS = 1000


class TokenizerPool:
    """Converts texts to token ids and back, within the limits of the settings.

    Attributes:
        workers: the number of threads for requests that are not bulk requests.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self.workers = min(4, os.cpu_count() or 1)
        self._threads = CapacityLimiter(self.workers)
        self._bulk_threads = CapacityLimiter(max(1, self.workers // 2))

    async def encode(self, model: ServedModel, group: InputGroup, truncate: bool) -> list[Encoding]:
        """Returns one encoding per input, for the model.

        Raises:
            InvalidError: the model cannot encode an input.
            TooLongError: a text is too long, and `truncate` is false.
        """
        encoder = model.profile
        encodings = await self._encode(encoder, group)
        shortened = truncated(encodings)
        if shortened and not truncate:
            raise TooLongError(
                f"text has more than {encoder.tokenization.doc_max_length} tokens (doc_max_length), or more than "
                f"{encoder.max_length} with its instruction (max_length), and truncate is false",
                group.param(shortened[0], "text"),
            )
        self._metrics.inputs.labels(model.label).inc(len(encodings))
        self._metrics.tokens.labels(model.label).inc(sum(map(len, encodings)))
        self._metrics.truncated.labels(model.label).inc(len(shortened))
        return encodings

    async def show(
        self, encoder: Profile, group: InputGroup, render: Callable[[Any], T], *, special: bool
    ) -> AsyncIterator[T]:
        """Tokenizes inputs without template and truncation, for display, and yields the result for each.

        Args:
            encoder: its tokenizer is used.
            group: the inputs.
            render: converts the tokens of one input, in a thread, so that only its result is kept.
            special: add special tokens.

        Raises:
            TooLargeError: the inputs have more than `max_queue_tokens` tokens.
        """
        self.check_sizes([group])
        tokens, limit = 0, self._settings.max_queue_tokens
        if (estimate := estimate_tokens([group])) > limit:
            raise TooLargeError(f"about {estimate} tokens, at most {limit} (max_queue_tokens)", group.name)

        def show(input_: Input) -> T:
            nonlocal tokens
            shown = encoder.tokenization.show(input_, special=special)
            if (tokens := tokens + len(shown)) > limit:
                raise TooLargeError(f"more than {limit} tokens (max_queue_tokens)", group.name)
            return render(shown)

        async for shown in self._map(show, group.inputs):
            yield shown

    async def decode(
        self, encoder: Profile, items: Sequence[str | list[int]], param: Callable[[int], str], *, skip_special: bool
    ) -> list[str]:
        """Decodes rows of token ids to texts; items that are texts stay as they are.

        Args:
            encoder: its tokenizer is used.
            items: texts or rows of token ids.
            param: returns the caller's name for the item at a position.
            skip_special: leave special tokens out of the texts.

        Raises:
            InvalidError: a row is too long, or holds an id that the model does not have.
            TooLargeError: the texts exceed `max_body_bytes`; one token may stand for a hundred characters.
        """
        if all(isinstance(item, str) for item in items):
            return [str(item) for item in items]
        tokenizer = encoder.tokenization.tokenizer
        vocabulary, remaining = tokenizer.get_vocab_size(), self._settings.max_body_bytes

        def check(index: int) -> None:
            if not isinstance(ids := items[index], str):
                self._check_ids(ids, vocabulary, param(index))

        def decode(index: int) -> str:
            nonlocal remaining
            if isinstance(ids := items[index], str):
                return ids
            text: str = tokenizer.decode(ids, skip_special_tokens=skip_special)
            if (remaining := remaining - len(text)) < 0:
                limit = self._settings.max_body_bytes
                raise TooLargeError(f"the ids decode to more than {limit} characters (max_body_bytes)", param(index))
            return text

        async for _ in self._map(check, range(len(items))):
            pass  # decoding takes ten times as long, so it starts once all ids are known to be good
        return [text async for text in self._map(decode, range(len(items)))]

    def check_count(self, count: int, *names: str) -> None:
        """Raises `TooLargeError` if the named fields hold too many inputs."""
        if count > (limit := self._settings.max_inputs):
            together = f" in {' and '.join(names)}" if len(names) > 1 else ""
            raise TooLargeError(f"{count} inputs{together}, at most {limit} (max_inputs)", names[0])

    def check_sizes(self, groups: Sequence[InputGroup]) -> None:
        """Raises `TooLargeError` for too many inputs, `InvalidError` for one that is too long."""
        self.check_count(sum(len(group.inputs) for group in groups), *(group.name for group in groups))
        limit = self._settings.max_characters
        for group in groups:
            for index, input_ in enumerate(group.inputs):
                for field in ("text", "instruction"):
                    if (length := len(getattr(input_, field))) > limit:
                        message = f"{field} has {length} characters, at most {limit} (max_characters)"
                        raise InvalidError(message, group.param(index, field))

    def _check_ids(self, ids: list[int], vocabulary: int, param: str) -> None:
        if len(ids) > (limit := self._settings.max_characters):
            raise InvalidError(f"{len(ids)} token ids, at most {limit} (max_characters)", param)
        if min(ids) < 0:
            first = next(position for position, id_ in enumerate(ids) if id_ < 0)
            raise InvalidError("must be at least 0", f"{param}[{first}]")
        if (highest := max(ids)) >= vocabulary:
            raise InvalidError(f"{highest} is not a token id of the model", param)

    async def _encode(self, encoder: Profile, group: InputGroup) -> list[Encoding]:
        encodings: list[Encoding] = []
        inputs = group.inputs
        try:
            if len(inputs) <= _CHUNK and sum(len(i.text) + len(i.instruction) for i in inputs) <= _INLINE_CHARACTERS:
                return encoder.tokenize(inputs)
            async for chunk in self._chunks(encoder.tokenize, inputs):
                encodings += chunk
        except InputError as error:
            raise InvalidError(str(error), group.param(len(encodings) + error.index, error.field)) from error
        return encodings

    async def _map(self, function: Callable[[T], R], items: Sequence[T]) -> AsyncIterator[R]:
        """Applies `function` to each item, in threads."""
        async for chunk in self._chunks(lambda chunk: [function(item) for item in chunk], items):
            for result in chunk:
                yield result

    async def _chunks(self, function: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> AsyncIterator[list[R]]:
        """Processes a chunk at a time, so that the rest of a cancelled request is skipped."""
        threads = self._bulk_threads if len(items) > _CHUNK else self._threads
        for start in range(0, len(items), _CHUNK):
            yield await to_thread.run_sync(
                function, items[start : start + _CHUNK], abandon_on_cancel=True, limiter=threads
            )


def truncated(encodings: Sequence[Encoding]) -> list[int]:
    """The positions of the encodings that were truncated."""
    return [index for index, encoding in enumerate(encodings) if encoding.truncated]
