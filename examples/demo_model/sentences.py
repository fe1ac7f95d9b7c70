"""Composed sentences about people, animals and things, in plain English that technical texts lack.

They either fill a pattern with common words, or replace some nouns of a public sentence with others of the same kind.
They only have to be grammatical: the teacher provides their meaning.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

KINDS = ("animal", "person", "artifact", "food", "object", "plant", "body", "location", "act", "time", "substance",
         "communication", "event", "group", "phenomenon", "feeling", "cognition", "state")  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+")
# Minimum occurrences of a word in the texts to count as common.
_COMMON = 25
_INTRANSITIVE = (
    "sits", "sleeps", "runs", "jumps", "walks", "stands", "lies", "waits", "plays", "eats", "drinks", "looks",
    "barks", "sings", "dances", "smiles", "laughs", "cries", "rests", "climbs", "swims", "falls", "hides",
    "flies", "crawls", "shouts", "reads", "writes", "works", "cooks", "talks", "listens", "rolls", "turns",
    "stops",
)  # fmt: skip
_TRANSITIVE = (
    "chases", "sees", "watches", "likes", "loves", "finds", "follows", "carries", "pushes", "pulls", "holds",
    "eats", "drops", "throws", "catches", "buys", "sells", "breaks", "cleans", "paints", "cuts", "washes",
    "opens", "closes", "moves", "hits", "kicks", "touches", "feeds", "brings", "takes", "wants", "needs", "has",
    "makes", "builds", "draws", "fixes", "steals", "hears", "smells", "bites", "rides", "drives", "cooks",
)  # fmt: skip
_PREPOSITIONS = (
    "on", "in", "under", "near", "behind", "next to", "beside", "in front of", "at", "by", "over", "from",
)  # fmt: skip
_ADJECTIVES = (
    "big", "small", "red", "blue", "green", "old", "young", "white", "black", "brown", "happy", "sad", "angry",
    "little", "tall", "fat", "thin", "hungry", "tired", "wet", "dry", "hot", "cold", "new", "dirty", "clean",
    "broken", "heavy", "fast", "slow", "empty", "full", "quiet", "loud",
)  # fmt: skip


class Nouns:
    """Common nouns, by WordNet's topic.

    Attributes:
        kind: noun → topic.
        words: topic → nouns.
    """

    def __init__(self, synsets: Iterable[dict[str, Any]], counts: Counter[str]) -> None:
        senses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for synset in synsets:
            topic = synset["topic"] if synset["pos"] == "noun" else ""
            for word in synset["words"]:
                if word.isalpha() and word.islower() and len(word) > 2 and counts[word] >= _COMMON:
                    senses[word][topic] += 1
        # Words that are often not nouns would make ungrammatical sentences.
        kinds = {
            word: topics.most_common(1)[0][0] for word, topics in senses.items() if topics[""] <= topics.total() / 3
        }
        self.kind = {word: kind for word, kind in kinds.items() if kind}
        self.words: defaultdict[str, list[str]] = defaultdict(list)
        for word, kind in sorted(self.kind.items()):
            self.words[kind].append(word)

    def similar(self, word: str, rng: random.Random) -> str | None:
        """A random noun of the same kind, in the singular or plural of the word; None if the word is not a noun."""
        for end in ("", "s"):
            kind = self.kind.get(word.removesuffix(end) if end else word)
            if kind in KINDS and word.endswith(end) and len(self.words[kind]) > 20:
                return rng.choice(self.words[kind]) + end
        return None


def replace_nouns(sentence: str, nouns: Nouns, rng: random.Random, most: int) -> str | None:
    """Replace up to `most` nouns of a sentence with similar ones; None if it has no nouns."""
    found = [match for match in _WORD.finditer(sentence) if nouns.similar(match[0], rng)]
    if not found:
        return None
    chosen = sorted(rng.sample(found, min(len(found), rng.randint(1, most))), key=lambda match: -match.start())
    for match in chosen:
        sentence = sentence[: match.start()] + str(nouns.similar(match[0], rng)) + sentence[match.end() :]
    return sentence


def compose_pairs(nouns: Nouns, rng: random.Random) -> Iterator[tuple[str, str]]:
    """An infinite sequence of sentence pairs that share some words."""

    def noun_phrase(*kinds: str) -> str:
        adjective = f"{rng.choice(_ADJECTIVES)} " if rng.random() < 0.3 else ""
        word = rng.choice(nouns.words[rng.choice(kinds)])
        article = rng.choice(("the", "the", "a", "my", "his", "her"))
        following = adjective or word
        return f"{'an' if article == 'a' and following[0] in 'aeiou' else article} {adjective}{word}"

    def fill() -> list[str]:
        subject = noun_phrase("animal", "person", "person")
        if rng.random() < 0.5:
            place = ("artifact", "object", "location", "plant")
            return [subject, rng.choice(_INTRANSITIVE), rng.choice(_PREPOSITIONS), noun_phrase(*place)]
        return [subject, rng.choice(_TRANSITIVE), "", noun_phrase("artifact", "food", "animal", "object")]

    while True:
        one, other = fill(), fill()
        if bool(one[2]) == bool(other[2]):
            other = [a if rng.random() < 0.5 else b for a, b in zip(one, other, strict=True)]
        yield " ".join(filter(None, one)), " ".join(filter(None, other))
