"""The training of the built-in model, on little data."""

import gzip
import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.demo_model import teacher
from examples.demo_model.base import CONFIG
from examples.demo_model.report import PAGE, adversarial_table
from examples.demo_model.scores import bm25, of_vectors, tfidf
from examples.demo_model.sentences import Nouns, compose_pairs, replace_nouns
from examples.demo_model.stages import Steps, make, publish
from examples.demo_model.text import held_out, manual_pages, python_docs
from l2v.models import Input, load
from l2v.models.published import DEMO
from tests.bulk.shell import WORDS
from tests.rights import readable

ROFF = r""".\" a comment
.TH LS 1
.SH NAME
ls \- list directory contents
.SH DESCRIPTION
.PP
List information about the \fBFILE\fPs in \(aqsorted\(aq order of their names.
.TP
.B \-a
do not ignore entries that start with a dot
.SH "SEE ALSO"
dir(1)
"""
ANIMALS = ["cat", "dog", "cow", "pig", "hen", "goat", "duck", "horse", "sheep", "mouse", "bird", "fish", "bear", "wolf"]
ANIMALS += ["lion", "deer", "hare", "frog", "bee", "ant", "fly", "worm"]
KINDS = {"cat": "animal", "mat": "artifact", "stock": "person", "markets": "food", "rivers": "object",
         "mountains": "location", "green": "plant"}  # fmt: skip


def synset(word: str, kind: str) -> dict[str, object]:
    # A definition that is not held out for evaluation.
    definition = next(text for i in range(9) if not held_out(text := f"what people call {word} {i}"))
    examples = [f"the {word} is on the mat"]
    return {"id": word, "words": [word], "pos": "noun", "topic": kind, "definition": definition,
            "examples": examples, "hypernyms": []}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder described in docs/demo-model.md, with little in it."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)

    def sentence() -> str:
        return " ".join(rng.choices(WORDS, k=8)) + "."

    files = {
        "text/wordnet.jsonl.gz": [synset(word, kind) for word, kind in KINDS.items()],
        "pairs/wikisplit.jsonl.gz": [{"sentence": sentence(), "split": [sentence(), sentence()]} for _ in range(20)],
        "sts/stsb-train.jsonl.gz": [{"a": sentence(), "b": sentence(), "score": i % 6} for i in range(90)],
        "text/wikitext2.txt.gz": [f"{sentence()} {sentence()}" for _ in range(20)],
        "text/speeches.txt.gz": [f"{sentence()} {sentence()}" for _ in range(20)],
    }
    for name, rows in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with gzip.open(folder / name, "wt") as file:
            file.writelines(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    return folder


def test_a_manual_page_is_read_without_its_markup(tmp_path: Path) -> None:
    (tmp_path / "man1").mkdir()
    with gzip.open(tmp_path / "man1/ls.1.gz", "wt") as file:
        file.write(ROFF)
    (page,) = manual_pages(tmp_path)
    assert (page.name, page.summary) == ("ls", "list directory contents")
    assert page.paragraphs == [
        "List information about the FILEs in 'sorted' order of their names.",
        "-a do not ignore entries that start with a dot",
    ]


def test_nouns_are_replaced_with_others_of_the_same_kind() -> None:
    nouns = Nouns([synset(word, "animal") for word in ANIMALS], Counter(dict.fromkeys(ANIMALS, 99)))
    rng = random.Random(0)
    other = replace_nouns("the cats chase a dog.", nouns, rng, most=2)
    assert other is not None
    assert other != "the cats chase a dog."
    assert other.startswith("the ")
    assert other.endswith(".")
    assert replace_nouns("nothing of the kind", nouns, rng, most=2) is None
    for kind in ("person", "artifact", "object", "location", "plant", "food"):
        nouns.words[kind] = nouns.words["animal"]
    one, related = next(compose_pairs(nouns, rng))
    assert one
    assert related


def test_the_teacher_resumes_after_an_interruption(tmp_path: Path) -> None:
    texts = ["a cat on a mat", "a kitten lies on a rug", "stocks fell"]
    whole = teacher.embed(texts, tmp_path / "whole")
    assert whole[0] @ whole[1] > whole[0] @ whole[2] + 0.3
    # An interruption left one and a half rows of 384 two-byte numbers.
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[: 384 * 3])
    np.testing.assert_allclose(teacher.embed(texts, tmp_path / "cut"), whole, atol=2e-2)
    reduced = teacher.reduce(whole, teacher.principal_directions(whole, 3))
    np.testing.assert_allclose(reduced @ reduced.T, whole @ whole.T, atol=1e-2)


def test_word_matching_finds_words() -> None:
    documents = ["the cat sits", "a dog barks", "stocks fall"]
    for match in (tfidf, bm25):
        assert match(["cat", "dog", "unseen"], documents).argmax(1)[:2].tolist() == [0, 1]
        assert not match(["cat", "dog", "unseen"], documents)[2].any()
    eye: NDArray[np.float32] = np.eye(3, dtype=np.float32)
    assert (of_vectors(lambda texts: eye[: len(texts)] * 7)(["a"], ["b", "c"]) == [[1, 0]]).all()


def test_the_docs_say_what_the_built_in_model_gets_wrong() -> None:
    assert adversarial_table(DEMO) in PAGE.read_text(encoding="utf-8")


def test_every_stage_runs_and_the_result_can_be_served(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reading all docstrings and manual pages of the machine would take longer than training.
    (tmp_path / "man1").mkdir()
    (tmp_path / "man1/ls.1.gz").write_bytes(gzip.compress(ROFF.encode()))
    pages = manual_pages(tmp_path)
    monkeypatch.setattr("examples.demo_model.corpus.manual_pages", lambda: pages)
    monkeypatch.setattr("examples.demo_model.corpus.python_docs", lambda: islice(python_docs(), 40))
    monkeypatch.setattr(CONFIG, "vocab_size", 1024)
    work, out = tmp_path / "work", tmp_path / "out"
    steps = Steps(base=2, mntp=2, simcse=1, supervised=2, graded=2)
    make(data, work, steps, pairs=150)
    publish(work, out)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    make(data, work, steps, pairs=150)
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    encoder = load(str(out / "base"), [str(out / "mntp"), str(out / "contrastive")], dtype="float32")
    plain = load(str(out / "base"), dtype="float32")
    texts = [Input("the cat sits on the mat")]
    assert encoder.encode(texts).shape == (1, 256)
    # A container runs as another user, who must be able to read the files.
    assert {path.stat().st_mode & 0o777 for path in out.rglob("*.*")} == {readable(tmp_path)}
    assert (work / "graded" / "adapter_model.safetensors").stat().st_mode & 0o777 == readable(tmp_path)
    # The second adapter combines the last two stages, rounded to bfloat16.
    stages = load(
        str(work / "base"), [str(work / stage) for stage in ("mntp", "supervised", "graded")], dtype="float32"
    )
    np.testing.assert_allclose(encoder.encode(texts), stages.encode(texts), atol=2e-2)
    assert np.abs(encoder.encode(texts) - plain.encode(texts)).max() > 1e-3
    assert {path.name for path in (out / "contrastive").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
