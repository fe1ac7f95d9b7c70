"""Rejecting texts by their tokens: without tokenizing what cannot matter."""

import asyncio
from collections.abc import Sequence
from threading import Event, Semaphore
from types import SimpleNamespace
from typing import Any

import pytest

from l2v.app.engine.errors import InvalidError, TooLargeError, TooLongError
from l2v.app.engine.inputs import DefaultInstruction, InputGroup
from l2v.app.engine.tokenization import TokenizerPool
from l2v.app.settings import Settings
from l2v.models import Encoder, Encoding, Input


class Counting:
    """Stands for an encoder's profile, and counts the texts that it tokenizes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.texts = encoder, 0
        self.max_length, self.tokenization = encoder.max_length, encoder.tokenization

    def tokenize(self, inputs: Sequence[Input], *, truncate: bool) -> list[Encoding]:
        self.texts += len(inputs)
        return self._encoder.tokenization(inputs, truncate=truncate)


def group(name: str, texts: list[str]) -> InputGroup:
    return InputGroup(name, [Input(text) for text in texts], DefaultInstruction("", "instruction"))


def encode(counting: Counting, groups: list[InputGroup], **options: Any) -> list[list[Encoding]]:
    model: Any = SimpleNamespace(profile=counting, label="demo")
    return asyncio.run(TokenizerPool(Settings()).encode(model, groups, **options))


@pytest.fixture
def counting(encoder: Encoder) -> Counting:
    return Counting(encoder)


def test_a_text_that_is_too_long_is_found_before_the_others_are_tokenized(counting: Counting) -> None:
    groups = [group("queries", ["a b c d"] * 500), group("documents", [*["a b"] * 499, "long " * 300])]
    with pytest.raises(TooLongError) as rejected:
        encode(counting, groups, truncate=False)
    assert (rejected.value.param, counting.texts) == ("documents[499].text", 1)


def test_encodings_keep_the_order_of_the_inputs(counting: Counting, encoder: Encoder) -> None:
    groups = [group("queries", ["a" * (1 + n % 7) + " b" for n in range(100)]), group("documents", ["b", "a " * 99])]
    expected = [encoder.tokenize(each.inputs) for each in groups]
    for truncate in (True, False):
        assert encode(counting, groups, truncate=truncate) == expected


def test_tokens_are_counted_while_texts_are_tokenized(counting: Counting) -> None:
    with pytest.raises(TooLargeError, match="max_batch_tokens"):
        encode(counting, [group("inputs", ["a " * 100] * 64)], truncate=True, max_tokens=300)
    assert counting.texts <= 7


def test_a_cancelled_request_counts_until_its_thread_ends(counting: Counting) -> None:
    pool, inputs, gate, running = TokenizerPool(Settings()), [group("inputs", ["a " * 2000] * 2)], Event(), list[int]()
    begun = Semaphore(0)
    tokenize = counting.tokenize

    def wait(inputs: Sequence[Input], *, truncate: bool) -> list[Encoding]:
        running.append(1)
        begun.release()
        gate.wait(10)
        return tokenize(inputs, truncate=truncate)

    async def cancel_many() -> None:
        model: Any = SimpleNamespace(profile=counting, label="demo")
        counting.tokenize = wait  # type: ignore[method-assign]
        tasks = [asyncio.create_task(pool.encode(model, inputs, truncate=True)) for _ in range(pool.workers)]
        for _ in range(pool.workers):
            await asyncio.to_thread(begun.acquire)
        tasks += [asyncio.create_task(pool.encode(model, inputs, truncate=True)) for _ in range(pool.workers)]
        for task in tasks:
            task.cancel()
        waiting = asyncio.create_task(pool.encode(model, inputs, truncate=True))
        await asyncio.sleep(0.1)
        assert len(running) == pool.workers
        gate.set()
        assert len((await waiting)[0]) == 2

    asyncio.run(cancel_many())


def test_an_input_that_the_model_cannot_encode_is_named(counting: Counting) -> None:
    inputs = [Input("a " * 20), *[Input("b")] * 99, Input("a", "i " * 900)]
    groups = [group("queries", ["a"]), InputGroup("documents", inputs, DefaultInstruction("", "instruction"))]
    for truncate in (True, False):
        with pytest.raises(InvalidError, match="no room") as rejected:
            encode(counting, groups, truncate=truncate)
        assert rejected.value.param == "documents[100].instruction"
