"""Scores on tasks of matching texts, for encoders and for plain word matching."""

from collections.abc import Callable, Sequence
from pathlib import Path

import bm25s
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from examples.demo_model.text import held_out, manual_pages, rows
from l2v.models import Encoder, Input
from l2v.models.batch import Batch
from l2v.models.forward import hidden_states
from l2v.models.pooling import pool

# n queries, m documents → [n, m] similarities.
Match = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]
_FOLDER = Path(__file__).parent
_BATCH_SIZE = 256


class Tasks:
    """Evaluation data, all of it held out from training.

    Attributes:
        sts: STS-B dev, as (text, other text, score).
        words: WordNet definitions and the words that they define.
        pages: one-line summaries of manual pages, and the beginnings of their descriptions.
        triplets: a text, a paraphrase in other words, and an unrelated text.
    """

    def __init__(self, data: Path) -> None:
        self.sts = [(row["a"], row["b"], row["score"]) for row in rows(data / "sts/stsb-dev.jsonl.gz")]
        synsets = [row for row in rows(data / "text/wordnet.jsonl.gz") if held_out(row["definition"])]
        self.words = [(row["definition"], ", ".join(row["words"])) for row in synsets]
        pages = [page for page in manual_pages() if page.held_out and page.paragraphs]
        self.pages = [(page.summary, " ".join(page.paragraphs)[:400]) for page in pages]
        self.triplets = _read("triplets.tsv")

    def scores(self, match: Match) -> dict[str, float]:
        """The score of each task, from 0 to 1."""
        return {
            "sts": self.sts_score(match),
            "words": _mean_reciprocal_rank(match, self.words),
            "pages": _mean_reciprocal_rank(match, self.pages),
            "triplets": _share_right(match, self.triplets),
        }

    def sts_score(self, match: Match) -> float:
        """Spearman's correlation with human scores."""
        left, right, human = zip(*self.sts, strict=True)
        return float(spearmanr(np.diagonal(match(left, right)), human)[0])


def adversarial_triplets() -> dict[str, list[tuple[str, ...]]]:
    """By kind: triplets of a text, a paraphrase in other words, and a text in the same words that means another thing.

    The kinds are `overlap` (a shared word has another meaning), `negation` and `numbers`.
    """
    triplets: dict[str, list[tuple[str, ...]]] = {}
    for kind, *texts in _read("adversarial.tsv"):
        triplets.setdefault(kind, []).append(tuple(texts))
    return triplets


def adversarial_scores(match: Match) -> dict[str, float]:
    """For each kind of adversarial triplets, the share in which the paraphrase comes first; a tie counts half."""
    return {kind: _share_right(match, triplets) for kind, triplets in adversarial_triplets().items()}


def of_encoder(encoder: Encoder, *, causal: bool = False) -> Match:
    """Match by the cosine of an encoder's vectors."""

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = []
        for start in range(0, len(texts), _BATCH_SIZE):
            encodings = encoder.tokenize([Input(text) for text in texts[start : start + _BATCH_SIZE]])
            batch = Batch.pack(encodings, encoder.device)
            with torch.inference_mode():
                pooled = pool(hidden_states(encoder.model, batch, causal=causal), batch, encoder.pooling)
            vectors.append(pooled.float().cpu().numpy())
        return np.concatenate(vectors)

    return of_vectors(embed)


def of_vectors(embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> Match:
    """Match by the cosine of the vectors that `embed` returns."""

    def unit(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = embed(texts)
        lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / lengths

    return lambda queries, documents: unit(queries) @ unit(documents).T


def tfidf(queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
    """Match by the cosine of TF-IDF vectors, with frequencies from queries and documents."""
    vectorizer = TfidfVectorizer().fit([*queries, *documents])
    scores: NDArray[np.float32] = (vectorizer.transform(queries) @ vectorizer.transform(documents).T).toarray()
    return scores


def bm25(queries: Sequence[str], documents: Sequence[str]) -> NDArray[np.float32]:
    """Match by BM25."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(documents), show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(queries), return_ids=False, show_progress=False)
    return np.stack([index.get_scores(words) if words else np.zeros(len(documents)) for words in tokens])


def _read(name: str) -> list[tuple[str, ...]]:
    return [tuple(line.split("\t")) for line in (_FOLDER / name).read_text(encoding="utf-8").splitlines()]


def _share_right(match: Match, triplets: Sequence[tuple[str, ...]]) -> float:
    """The share of triplets in which the related text comes before the other one; a tie counts half."""
    texts, related, other = zip(*triplets, strict=True)
    near, far = (np.diagonal(match(texts, others)) for others in (related, other))
    return float(np.mean((near > far) + (near == far) / 2))


def _mean_reciprocal_rank(match: Match, pairs: Sequence[tuple[str, str]]) -> float:
    """The mean of 1 / rank of the right document; tied documents rank before it."""
    scores = match(*zip(*pairs, strict=True))
    ranks = (scores >= np.diagonal(scores)[:, None]).sum(1)
    return float(np.mean(1 / ranks))
