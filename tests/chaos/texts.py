"""The texts of the runs, and their right vectors: as the server gave them one by one, before anything went wrong."""

import base64
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.chaos.wire import Reply, Wire, post
from tests.dtypes import AUTO, LEAST

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
    """Different texts of 1 to `longest` words, the same ones each time."""
    chance = random.Random(seed)
    return [f"{number} " + " ".join(chance.choices(WORDS, k=chance.randint(1, longest))) for number in range(count)]


def ask(inputs: list[str], request_id: str = "") -> bytes:
    """A request for the vectors of some texts."""
    return post(
        "/embed", {"inputs": inputs, "encoding_format": "base64"}, {"X-Request-Id": request_id} if request_id else {}
    )


def vectors_of(reply: Reply) -> NDArray[np.float32]:
    """[n, d] of an answer to `ask`."""
    return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in reply.content["embeddings"]])


@dataclass
class Known:
    """Texts with their right vectors."""

    least: float
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    async def learn(cls, wire: Wire, some: list[str], dtype: str = AUTO) -> "Known":
        """Asks for each text alone."""
        known = cls(LEAST[dtype])
        for text in some:
            (known.vectors[text],) = vectors_of(await wire.send(ask([text])))
        return known

    def least_cosine(self, inputs: list[str], reply: Reply) -> float:
        """The worst of the cosines of an answer's vectors with the right ones."""
        return min(float(vector @ self.vectors[text]) for text, vector in zip(inputs, vectors_of(reply), strict=True))

    def right(self, inputs: list[str], reply: Reply) -> bool:
        """Whether the answer is whole and its vectors are those of its texts."""
        return reply.status == 200 and self.least_cosine(inputs, reply) >= self.least
