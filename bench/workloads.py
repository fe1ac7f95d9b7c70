"""The texts to embed: prose from Python's documentation on this machine, cut to random lengths with a fixed seed."""

import random
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer

from examples.demo_model.text import python_docs, sentences

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query:"
# More words than fit into 512 tokens with any tokenizer.
_LONG, _MAX_TOKENS = 600, 512


@dataclass(frozen=True)
class Workload:
    """Texts, with an optional instruction for all of them."""

    name: str
    texts: list[str]
    instruction: str = ""

    def joined(self) -> "Workload":
        """The same with the instruction as a part of each text."""
        return Workload(self.name, [f"{self.instruction} {text}".strip() for text in self.texts])


WORKLOADS = ("mixed", "queries", "long")


def workload(name: str, count: int, seed: int = 0) -> Workload:
    """Build a workload.

    Args:
        name: `mixed` (3 to 330 words, log-normal with median 40), `queries` (5 to 20 words after an instruction) or
            `long` (all truncated at 512 tokens).
        count: number of texts.
        seed: seed for their lengths and contents.
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


def for_llama_cpp(task: Workload, tokenizer: Path) -> Workload:
    """The texts normalized as the tokenizer's file says, and cut to 512 tokens; llama.cpp does neither."""
    ours = Tokenizer.from_file(str(tokenizer))
    texts = []
    for text in task.joined().texts:
        normal = ours.normalizer.normalize_str(text)
        *_, (_, end) = ours.encode(normal).offsets[:_MAX_TOKENS]
        texts.append(f" {normal[:end]}")  # a byte-level tokenizer puts a blank before the first word
    return Workload(task.name, texts)


@cache
def _words() -> list[str]:
    paragraphs = chain.from_iterable(paragraphs for _, paragraphs in python_docs())
    return [word for text in paragraphs for sentence in sentences(text) for word in sentence.split()]
