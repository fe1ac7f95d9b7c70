"""What travels between the engine and its front ends arrives as it was."""

import asyncio
import pickle
import socket
from array import array
from dataclasses import replace

import numpy as np
import pytest

from l2v.app.engine.jobs import Result
from l2v.app.engine.profile import Profile
from l2v.app.workers.wire import Kind, pack_encodings, pack_result, receive, send, unpack_encodings, unpack_result
from l2v.models import Encoder, Encoding, Input


def test_encodings_arrive_as_they_were() -> None:
    encodings = [Encoding(array("q", [1, 2**40, 3]), 2), Encoding(array("q", [7]), 0, adapter=3)]
    assert unpack_encodings(b"".join(pack_encodings(encodings))) == encodings


def test_vectors_arrive_to_the_last_bit() -> None:
    chance = np.random.default_rng(0)
    rows = [chance.standard_normal(shape, np.float32) for shape in [(4,), (3, 4), (1, 4), (0, 4)]]
    rows.append(chance.standard_normal((8, 4), np.float32)[:, 1])  # not contiguous
    arrived = unpack_result(b"".join(pack_result(Result(rows, 0.25, 1.5))))
    assert (arrived.queued, arrived.computed) == (0.25, 1.5)
    for sent, received in zip(rows, arrived.vectors, strict=True):
        assert sent.shape == received.shape
        np.testing.assert_array_equal(sent, received)


@pytest.mark.parametrize("size", [0, 10, 65_536, 10_000_000])
def test_messages_of_any_size_arrive_in_order(size: int) -> None:
    async def run() -> None:
        ends = [await asyncio.open_unix_connection(sock=end) for end in socket.socketpair()]
        (reader, other), (_, writer) = ends
        for number in range(3):
            send(writer, Kind.RESULT, number, [b"x" * size, memoryview(b"y")])
        for number in range(3):
            assert await receive(reader) == (Kind.RESULT, number, b"x" * size + b"y")
        writer.close()
        with pytest.raises(EOFError):
            await receive(reader)
        other.close()

    asyncio.run(run())


def test_a_profile_tokenizes_alike_in_another_process(encoder: Encoder) -> None:
    """Pickled, the tokenizers library's own tokenizer forgets whether it splits special tokens."""
    texts = [Input("a text </s> <s>", "an instruction")]
    backend = encoder.tokenization.tokenizer
    for split in (False, True):
        tokenizer = type(backend).from_str(backend.to_str())
        tokenizer.encode_special_tokens = split
        profile = replace(Profile.of(encoder), tokenization=replace(encoder.tokenization, tokenizer=tokenizer))
        copy = pickle.loads(pickle.dumps(profile))  # noqa: S301
        assert copy.tokenize(texts) == profile.tokenize(texts)
        assert copy.tokenization.tokenizer.encode_special_tokens == split
    assert profile.tokenize(texts) != encoder.tokenize(texts)
