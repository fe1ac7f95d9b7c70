"""What the built-in model learns from: running text, and pairs of texts that have to do with one another."""

import random
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from examples.demo_model.compose import Nouns, exchanged, framed
from examples.demo_model.text import held_out, manual_pages, python_docs, rows, sentences

Pair = tuple[str, str]
Graded = tuple[str, str, float]
# How many pairs of each source are taken, at most. The teacher takes a second for some 400 texts.
_MOST = {
    "caption": 5_749, "word": 25_000, "example": 30_000, "general": 10_000, "split": 10_000, "next": 12_000,
    "python": 10_000, "manual": 15_000, "framed": 40_000, "exchanged": 46_000,
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Everything read, in a fixed order.

    Attributes:
        texts: documents, for the stages that predict tokens.
        pairs: texts that have to do with one another.
        graded: pairs, and how alike people found them, from 0 to 1.
    """

    texts: list[str]
    pairs: list[Pair]
    graded: list[Graded]


def read(data: Path, seed: int = 0) -> Corpus:
    """Reads and composes all of it; the same on each call with the same files.

    Args:
        data: the folder with `text/`, `pairs/` and `sts/` (docs/DEMO_MODEL.md says where the originals are).
        seed: of what is composed and of the order.
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
        said = [part for paragraph in paragraphs for part in sentences(paragraph)]
        pairs["python"] += [(f"{name}: {a}", b) for a, b in pairwise(said)]
    pairs["manual"] = []
    for page in manual_pages():
        if page.held_out:
            continue
        texts.append("\n\n".join([f"{page.name} - {page.summary}", *page.paragraphs]))
        said = [part for paragraph in page.paragraphs for part in sentences(paragraph)]
        pairs["manual"] += [(page.summary, said[0]), (f"{page.name} - {page.summary}", said[0])] if said else []
        pairs["manual"] += list(pairwise(said[:12]))
    nouns = Nouns(synsets, counts)
    pairs["framed"] = list(islice(framed(nouns, rng), _MOST["framed"]))
    seeds = [text for pair in captions for text in pair] * 2 + [e for s in synsets for e in s["examples"]]
    pairs["exchanged"] = [(text, other) for text in seeds if (other := exchanged(text, nouns, rng, 2))]
    # Twice, as there are few captions and people's first words are most like them.
    chosen = captions + [pair for name, all_ in pairs.items() for pair in rng.sample(all_, min(_MOST[name], len(all_)))]
    rng.shuffle(chosen)
    rng.shuffle(texts)
    return Corpus(texts, chosen, graded)
