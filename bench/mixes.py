"""The mixes of requests under which scheduling policies are compared."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

# Lengths of texts in tokens, from and to.
QUERY, PASSAGE = (6, 16), (6, 50)


@dataclass(frozen=True)
class Caller:
    """Clients that send requests of one kind.

    Attributes:
        kind: `small` or `large`.
        texts: the number of texts in a request; if there are several numbers, one of them at random.
        clients: how many; each waits for a response before its next request.
        rate: requests per second instead, whatever the responses.
        once: each client sends one request.
        length: of a text, in tokens, from and to.
    """

    kind: str
    texts: tuple[int, ...]
    clients: int = 0
    rate: float = 0.0
    once: bool = False
    length: tuple[int, int] = PASSAGE

    def requests(self) -> Iterator[list[int]]:
        """The lengths of the texts of each request; the same each time."""
        chance = random.Random(f"{self.kind} {self.texts}")
        while True:
            yield [chance.randint(*self.length) for _ in range(chance.choice(self.texts))]


def _small(clients: int = 0, rate: float = 0.0) -> Caller:
    return Caller("small", (1,), clients, rate, length=QUERY)


MIXES = {
    "1,024 texts beside 64 clients of one text": (_small(64), Caller("large", (1024,), 1, once=True)),
    "1,024 texts beside 256 clients of one text": (_small(256), Caller("large", (1024,), 1, once=True)),
    "sixteen requests of 64 texts at once": (Caller("large", (64,), 16, once=True),),
    "four clients of 500 texts, eight of one text": (_small(8), Caller("large", (500,), 4)),
    "four clients of 500 texts, two of 64, five texts a second": (
        _small(rate=5),
        Caller("medium", (64,), 2),
        Caller("large", (500,), 4),
    ),
    "eight clients of 1, 16 or 200 texts": (_small(4), Caller("medium", (16,), 3), Caller("large", (200,), 1)),
    "four clients of 500 texts": (Caller("large", (500,), 4),),
    "sixteen clients of 1 to 16 texts": (Caller("small", tuple(range(1, 17)), 16),),
    "one client of one text": (_small(1),),
    "sixteen clients of one text": (_small(16),),
    "64 clients of one text": (_small(64),),
    "four clients of 1,000 texts, five texts a second": (_small(rate=5), Caller("large", (1000,), 4)),
}
