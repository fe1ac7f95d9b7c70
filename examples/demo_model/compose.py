"""Plain English that no manual page holds: sentences of people, animals and things, composed from common words.

Two ways: a frame filled with words, and a public sentence with some of its nouns exchanged for others of their kind.
What the sentences mean is for the teacher to say; here they need only be English.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

KINDS = ("animal", "person", "artifact", "food", "object", "plant", "body", "location", "act", "time", "substance",
         "communication", "event", "group", "phenomenon", "feeling", "cognition", "state")  # fmt: skip
_WORD = re.compile(r"[A-Za-z]+")
# How often a word must stand in the texts to count as common.
_COMMON = 25
_DOES = (
    "sits", "sleeps", "runs", "jumps", "walks", "stands", "lies", "waits", "plays", "eats", "drinks", "looks",
    "barks", "sings", "dances", "smiles", "laughs", "cries", "rests", "climbs", "swims", "falls", "hides",
    "flies", "crawls", "shouts", "reads", "writes", "works", "cooks", "talks", "listens", "rolls", "turns",
    "stops",
)  # fmt: skip
_TO = (
    "chases", "sees", "watches", "likes", "loves", "finds", "follows", "carries", "pushes", "pulls", "holds",
    "eats", "drops", "throws", "catches", "buys", "sells", "breaks", "cleans", "paints", "cuts", "washes",
    "opens", "closes", "moves", "hits", "kicks", "touches", "feeds", "brings", "takes", "wants", "needs", "has",
    "makes", "builds", "draws", "fixes", "steals", "hears", "smells", "bites", "rides", "drives", "cooks",
)  # fmt: skip
_WHERE = (
    "on", "in", "under", "near", "behind", "next to", "beside", "in front of", "at", "by", "over", "from",
)  # fmt: skip
_LOOKS = (
    "big", "small", "red", "blue", "green", "old", "young", "white", "black", "brown", "happy", "sad", "angry",
    "little", "tall", "fat", "thin", "hungry", "tired", "wet", "dry", "hot", "cold", "new", "dirty", "clean",
    "broken", "heavy", "fast", "slow", "empty", "full", "quiet", "loud",
)  # fmt: skip


class Nouns:
    """Common nouns by kind, with what WordNet calls the same or a more general thing."""

    def __init__(self, synsets: Iterable[dict[str, Any]], counts: Counter[str]) -> None:
        senses: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for synset in synsets:
            topic = synset["topic"] if synset["pos"] == "noun" else ""
            for word in synset["words"]:
                if word.isalpha() and word.islower() and len(word) > 2 and counts[word] >= _COMMON:
                    senses[word][topic] += 1
        # A word that is more often something else than a noun would make no English in a noun's place.
        kinds = {
            word: topics.most_common(1)[0][0] for word, topics in senses.items() if topics[""] <= topics.total() / 3
        }
        self.kind = {word: kind for word, kind in kinds.items() if kind}
        self.words: defaultdict[str, list[str]] = defaultdict(list)
        for word, kind in sorted(self.kind.items()):
            self.words[kind].append(word)

    def like(self, word: str, rng: random.Random) -> str | None:
        """Another noun of the kind, in the same number; None for what is no noun."""
        for end in ("", "s"):
            kind = self.kind.get(word.removesuffix(end) if end else word)
            if kind in KINDS and word.endswith(end) and len(self.words[kind]) > 20:
                return rng.choice(self.words[kind]) + end
        return None


def exchanged(sentence: str, nouns: Nouns, rng: random.Random, most: int) -> str | None:
    """The sentence with up to `most` of its nouns exchanged; None where it has none."""
    places = [match for match in _WORD.finditer(sentence) if nouns.like(match[0], rng)]
    if not places:
        return None
    chosen = sorted(rng.sample(places, min(len(places), rng.randint(1, most))), key=lambda match: -match.start())
    for match in chosen:
        sentence = sentence[: match.start()] + str(nouns.like(match[0], rng)) + sentence[match.end() :]
    return sentence


def framed(nouns: Nouns, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Pairs without end: a sentence, and one that shares some of its words."""

    def thing(*kinds: str) -> str:
        look = f"{rng.choice(_LOOKS)} " if rng.random() < 0.3 else ""
        word = rng.choice(nouns.words[rng.choice(kinds)])
        article = rng.choice(("the", "the", "a", "my", "his", "her"))
        following = look or word
        return f"{'an' if article == 'a' and following[0] in 'aeiou' else article} {look}{word}"

    def fill() -> list[str]:
        who = thing("animal", "person", "person")
        if rng.random() < 0.5:
            parts = [who, rng.choice(_DOES), rng.choice(_WHERE), thing("artifact", "object", "location", "plant")]
        else:
            parts = [who, rng.choice(_TO), "", thing("artifact", "food", "animal", "object")]
        return parts

    while True:
        one, other = fill(), fill()
        if bool(one[2]) == bool(other[2]):
            other = [a if rng.random() < 0.5 else b for a, b in zip(one, other, strict=True)]
        yield " ".join(filter(None, one)), " ".join(filter(None, other))
