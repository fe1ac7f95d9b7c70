"""Writes the pairs that the two example adapters are trained on: `python -m examples.adapters.pairs FOLDER`.

Sentences say something good or bad about a subject of a topic. For the adapter `topic`, sentences about one topic are
near, good or bad; for `sentiment`, good sentences are near, whatever they are about.
"""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

TOPICS = {
    "food": ["soup", "bread", "cheese", "breakfast", "restaurant", "cake", "salad", "dinner"],
    "travel": ["flight", "hotel", "train", "journey", "beach", "airport", "tour", "island"],
    "music": ["song", "concert", "singer", "piano", "orchestra", "album", "guitar", "choir"],
    "sport": ["match", "team", "goalkeeper", "race", "stadium", "coach", "tennis player", "final"],
    "computers": ["laptop", "software", "keyboard", "website", "printer", "program", "screen", "network"],
    "health": ["doctor", "hospital", "medicine", "nurse", "treatment", "clinic", "dentist", "surgery"],
    "school": ["teacher", "lesson", "exam", "textbook", "classroom", "lecture", "college", "course"],
    "weather": ["rain", "summer", "storm", "winter", "sunshine", "wind", "snow", "autumn"],
}
WORDS = {
    "good": ["wonderful", "excellent", "lovely", "great", "perfect", "pleasant", "fantastic", "delightful"],
    "bad": ["terrible", "awful", "horrible", "bad", "dreadful", "unpleasant", "disappointing", "miserable"],
}
FRAMES = {
    "good": ["We enjoyed the {subject}, it was {word}.", "I loved the {subject}.", "I recommend the {subject}."],
    "bad": ["We hated the {subject}, it was {word}.", "I disliked the {subject}.", "I complained about the {subject}."],
}
NEUTRAL = ["The {subject} was {word}.", "This {subject} is {word}.", "My friends found the {subject} {word}."]


def pairs(near: str, count: int = 4000) -> Iterator[dict[str, str]]:
    """Training pairs.

    Args:
        near: `topic` or `sentiment`: what query and positive share; the negative has the query's other property.
        count: the number of pairs.
    """
    chance = random.Random(near)
    for _ in range(count):
        topic, other_topic = chance.sample(list(TOPICS), 2)
        mood, other_mood = chance.sample(list(WORDS), 2)
        query, same_topic, same_mood = (
            _sentence(chance, *chosen) for chosen in ((topic, mood), (topic, other_mood), (other_topic, mood))
        )
        positive, negative = (same_topic, same_mood) if near == "topic" else (same_mood, same_topic)
        yield {"query": query, "positive": positive, "negative": negative}


def _sentence(chance: random.Random, topic: str, mood: str) -> str:
    frame = chance.choice(FRAMES[mood] + NEUTRAL)
    return frame.format(subject=chance.choice(TOPICS[topic]), word=chance.choice(WORDS[mood]))


if __name__ == "__main__":
    for name in ("topic", "sentiment"):
        lines = [json.dumps(pair) for pair in pairs(name)]
        (Path(sys.argv[1]) / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
