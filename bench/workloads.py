"""What is embedded: real prose of this machine, cut to lengths that a fixed seed draws."""

import random
from dataclasses import dataclass
from functools import cache
from itertools import chain

from examples.demo_model.text import python_docs, sentences

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query:"
# More words than have room in a row of 512 tokens, whatever the tokenizer.
_LONG = 600


@dataclass(frozen=True)
class Workload:
    """Texts with or without an instruction before each."""

    name: str
    texts: list[str]
    instruction: str = ""


WORKLOADS = ("mixed", "queries", "long")


def workload(name: str, count: int, seed: int = 0) -> Workload:
    """`count` texts of one kind.

    Args:
        name: `mixed` (log-normal word counts of median 40, 3 to 330), `queries` (5 to 20 words behind an instruction)
            or `long` (all cut at 512 tokens).
        count: of the texts.
        seed: of lengths and places.
    """
    words = _words()
    rng = random.Random(f"{name} {seed}")
    texts = []
    for _ in range(count):
        if name == "mixed":
            length = min(330, max(3, round(rng.lognormvariate(3.69, 0.9))))
        elif name == "queries":
            length = rng.randint(5, 20)
        else:
            length = _LONG
        start = rng.randrange(len(words) - length)
        texts.append(" ".join(words[start : start + length]))
    return Workload(name, texts, INSTRUCTION if name == "queries" else "")


@cache
def _words() -> list[str]:
    paragraphs = chain.from_iterable(paragraphs for _, paragraphs in python_docs())
    return [word for text in paragraphs for sentence in sentences(text) for word in sentence.split()]
