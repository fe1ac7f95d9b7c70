"""Texts, and their reference vectors, which the server computes one by one before any fault is injected."""

import base64
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.chaos.wire import Reply, Wire, post
from tests.dtypes import AUTO, MIN_COSINE

WORDS = (
    "time",
    "person",
    "year",
    "way",
    "day",
    "thing",
    "man",
    "world",
    "life",
    "hand",
    "part",
    "child",
    "eye",
    "place",
)


def texts(count: int, longest: int = 40, seed: int = 0) -> list[str]:
    """Returns `count` different texts of 1 to `longest` words, determined by the seed."""
    chance = random.Random(seed)
    return [f"{number} " + " ".join(chance.choices(WORDS, k=chance.randint(1, longest))) for number in range(count)]


def ask(inputs: list[str], request_id: str = "") -> bytes:
    """Builds a request to embed some texts."""
    return post(
        "/embed", {"inputs": inputs, "encoding_format": "base64"}, {"X-Request-Id": request_id} if request_id else {}
    )


def vectors_of(reply: Reply) -> NDArray[np.float32]:
    """The vectors [n, d] of a reply to `ask`."""
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in reply.content["embeddings"]])


@dataclass
class ReferenceVectors:
    """The correct vectors of some texts.

    Attributes:
        min_cosine: minimum cosine of a correct vector to the reference.
        vectors: reference vectors by text.
    """

    min_cosine: float
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    async def compute(cls, wire: Wire, some: list[str], dtype: str = AUTO) -> "ReferenceVectors":
        """Embeds each text alone."""
        references = cls(MIN_COSINE[dtype])
        for text in some:
            (references.vectors[text],) = vectors_of(await wire.send(ask([text])))
        return references

    def cosine(self, inputs: list[str], reply: Reply) -> float:
        """The minimum cosine of a reply's vectors to the references."""
        return min(float(vector @ self.vectors[text]) for text, vector in zip(inputs, vectors_of(reply), strict=True))

    def match(self, inputs: list[str], reply: Reply) -> bool:
        """Whether the reply is complete and its vectors are correct."""
        return reply.status == 200 and self.cosine(inputs, reply) >= self.min_cosine
