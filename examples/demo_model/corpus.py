"""The training data of the built-in model: running text, and pairs of related texts."""

import random
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from examples.demo_model.sentences import Nouns, compose_pairs, replace_nouns
from examples.demo_model.text import held_out, manual_pages, python_docs, rows, sentences

Pair = tuple[str, str]
Graded = tuple[str, str, float]
# Maximum number of pairs from each source, since the teacher embeds only about 400 texts per second.
_MAX_PAIRS = {
    "caption": 5_749, "word": 25_000, "example": 30_000, "general": 10_000, "split": 10_000, "next": 12_000,
    "python": 10_000, "manual": 15_000, "composed": 40_000, "replaced": 46_000,
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """The training data, in a fixed order.

    Attributes:
        texts: documents, for the stages that predict tokens.
        pairs: related texts.
        graded: pairs with the similarity that people gave them, from 0 to 1.
    """

    texts: list[str]
    pairs: list[Pair]
    graded: list[Graded]


def read(data: Path, seed: int = 0) -> Corpus:
    """Read and compose the training data; the same files always give the same data.

    Args:
        data: the folder with `text/`, `pairs/` and `sts/` (docs/demo-model.md lists where to get them).
        seed: seed for the composed sentences and the order.
    """
    rng = random.Random(seed)
    texts: list[str] = []
    pairs: dict[str, list[Pair]] = {}
    graded = [(row["a"], row["b"], row["score"] / 5) for row in rows(data / "sts/stsb-train.jsonl.gz")]
    captions = [(a, b) for a, b, _ in graded]
    pairs["caption"] = captions
    synsets = [row for row in rows(data / "text/wordnet.jsonl.gz") if not held_out(row["definition"])]
    counts = Counter(re.findall(r"[a-z]+", " ".join(text for pair in captions for text in pair).lower()))
    for synset in synsets:
        counts.update(re.findall(r"[a-z]+", " ".join([synset["definition"], *synset["examples"]]).lower()))
    definition = {synset["id"]: synset["definition"] for synset in synsets}
    pairs["word"], pairs["example"], pairs["general"] = [], [], []
    for synset in synsets:
        words = ", ".join(synset["words"])
        texts.append(f"{words}: {'; '.join([synset['definition'], *synset['examples']])}")
        pairs["word"].append((words, synset["definition"]))
        pairs["example"] += [(f"{words}: {synset['definition']}", example) for example in synset["examples"]]
        general = [definition[i] for i in synset["hypernyms"] if i in definition]
        pairs["general"] += [(synset["definition"], text) for text in general[:1] if rng.random() < 0.3]
    pairs["split"] = []
    for row in rows(data / "pairs/wikisplit.jsonl.gz"):
        texts.append(row["sentence"])
        pairs["split"].append((row["sentence"], rng.choice([" ".join(row["split"]), *row["split"]])))
    pairs["next"] = []
    for name in ("wikitext2", "speeches"):
        for text in rows(data / f"text/{name}.txt.gz"):
            texts.append(text)
            pairs["next"] += pairwise(sentences(text))
    pairs["python"] = []
    for name, paragraphs in python_docs():
        texts.append("\n\n".join(paragraphs))
        parts = [part for paragraph in paragraphs for part in sentences(paragraph)]
        pairs["python"] += [(f"{name}: {a}", b) for a, b in pairwise(parts)]
    pairs["manual"] = []
    for page in manual_pages():
        if page.held_out:
            continue
        texts.append("\n\n".join([f"{page.name} - {page.summary}", *page.paragraphs]))
        parts = [part for paragraph in page.paragraphs for part in sentences(paragraph)]
        pairs["manual"] += [(page.summary, parts[0]), (f"{page.name} - {page.summary}", parts[0])] if parts else []
        pairs["manual"] += list(pairwise(parts[:12]))
    nouns = Nouns(synsets, counts)
    pairs["composed"] = list(islice(compose_pairs(nouns, rng), _MAX_PAIRS["composed"]))
    seeds = [text for pair in captions for text in pair] * 2 + [e for s in synsets for e in s["examples"]]
    pairs["replaced"] = [(text, other) for text in seeds if (other := replace_nouns(text, nouns, rng, 2))]
    # Captions count twice: there are few of them, and they are closest to what people try first.
    chosen = captions + [
        pair for name, all_ in pairs.items() for pair in rng.sample(all_, min(_MAX_PAIRS[name], len(all_)))
    ]
    rng.shuffle(chosen)
    rng.shuffle(texts)
    return Corpus(texts, chosen, graded)
