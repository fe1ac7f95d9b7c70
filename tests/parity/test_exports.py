"""Exports, opened by l2v and by sentence-transformers, against the repositories that they were made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from l2v.models import Encoder, Input, ModelError, load
from l2v.models.export import export
from tests.conftest import PARITY, STACKS
from tests.parity.families_goldens import FAMILIES, GOLDENS, LLM2VEC, SERVED, TOLERANCE, by_request, differences, unit
from tests.parity.hub import make_hub_cache

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["hello world", "another, longer text: 42", "  blanks and <mask>, <pad> or <eos>", "Ünïcödé, 日本語, 🙂"]
# After a blank they have as many tokens as at the start of a row, in each vocabulary.
ASKED = ["a cat sits on the mat", "every vector: 42", "in the list, 日本語"]
# The stacks whose base has a chat template, which sentence-transformers cannot put around a text.
PLAIN = [*LLM2VEC, "sheared-llama", "gemma"]


def open_export(encoder: Encoder, out: Path) -> tuple[Encoder, SentenceTransformer]:
    export(encoder, out)
    again = load(str(out), dtype="float32", prepack=False)
    return again, SentenceTransformer(str(out), device="cpu", local_files_only=True)


def values(encoder: Encoder) -> dict[str, Any]:
    """What `/info` says but for the files that each value comes from."""
    described = encoder.describe()
    settings = {name: each["value"] for name, each in described.pop("settings").items()}
    return described | {"settings": settings, "left_out": None}


@pytest.mark.parametrize("name", [name for name in SERVED if name not in LLM2VEC])
def test_an_export_gives_the_vectors_of_its_repository(name: str, tmp_path: Path) -> None:
    """With each prompt and without, of texts that are cut, and with token ids that differ for no text."""
    golden, original = GOLDENS[name], load(str(FAMILIES / "stacks" / name), dtype="float32", prepack=False)
    again, theirs = open_export(original, tmp_path / "out")
    assert values(again) == values(original)
    for request, rows in by_request(golden):
        texts = [row["text"] for row in rows]
        inputs = [Input(row["text"], row["prompt"] or "") for row in rows]
        np.testing.assert_array_equal(again.encode(inputs), original.encode(inputs))
        ids = [theirs[0].preprocess([row["text"]], prompt=row["prompt"])["input_ids"][0].tolist() for row in rows]
        assert ids == [row["ids"] for row in rows]
        vectors = theirs.encode(texts, **request)
        assert not differences(rows, vectors)
        assert vectors.shape[1] == original.dimensions
    assert theirs.similarity_fn_name == golden["declared"]["similarity"]


def stack(name: str, hub: Path) -> Encoder:
    """An LLM2Vec stack, whose weights are merged from two adapters."""
    if name in LLM2VEC:
        folder, (first, second) = FAMILIES / "stacks" / name, ("mntp", "simcse")
        make_hub_cache(hub, {GOLDENS[name]["declared"]["base"]: folder / "base"})
    else:
        folder, (first, second) = PARITY / "stacks" / name, ("mntp", "contrastive")
    return load(str(folder / first), [str(folder / second)], dtype="float32", prepack=False)


@pytest.mark.parametrize("name", PLAIN)
def test_sentence_transformers_pools_an_llm2vec_stack_as_llm2vec_does(name: str, hub: Path, tmp_path: Path) -> None:
    """Neither the beginning token nor an instruction is pooled."""
    original = stack(name, hub)
    again, theirs = open_export(original, tmp_path / "out")
    plain, asked = [Input(text) for text in TEXTS], [Input(text, "Find it:") for text in ASKED]
    for inputs in (plain, asked):
        np.testing.assert_array_equal(again.encode(inputs), original.encode(inputs))
    np.testing.assert_allclose(theirs.encode(TEXTS), unit(original.encode(plain)), atol=TOLERANCE)
    vectors = theirs.encode([f" {text}" for text in ASKED], prompt="Find it:")
    np.testing.assert_allclose(vectors, unit(original.encode(asked)), atol=TOLERANCE)
    readme = (tmp_path / "out/README.md").read_text()
    assert "**sentence-transformers 6** opens it with the same vectors, if" in readme
    assert ("must not change its token count" in readme) == (name != "sheared-llama")  # it puts one before each text


@pytest.mark.parametrize("name", sorted(STACKS.keys() - set(PLAIN)))
def test_a_template_is_said_to_change_the_vectors_elsewhere(name: str, hub: Path, tmp_path: Path) -> None:
    original = stack(name, hub)
    _, theirs = open_export(original, tmp_path / "out")
    readme = (tmp_path / "out/README.md").read_text()
    assert "**sentence-transformers 6** opens it, but with other vectors\n- it does not put the template" in readme
    assert np.abs(theirs.encode(TEXTS) - unit(original.encode([Input(text) for text in TEXTS]))).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("harrier-270m", {"attention": "bidirectional"}),  # Gemma 3 then halves its window
        ("qwen3-embedding", {"attention": "bidirectional", "pooling": "weighted_mean", "max_length": 24}),
        ("nemotron-3-embed", {"semantics": "llm2vec", "attention": "causal", "pooling": "last_token"}),
    ],
)
def test_settings_at_export_go_into_the_folder(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    original = load(str(FAMILIES / "stacks" / name), dtype="float32", prepack=False, **settings)
    again, theirs = open_export(original, tmp_path / "out")
    assert values(again) == values(original)
    vectors = original.encode([Input(text) for text in TEXTS])
    np.testing.assert_array_equal(again.encode([Input(text) for text in TEXTS]), vectors)
    np.testing.assert_allclose(unit(theirs.encode(TEXTS)), unit(vectors), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3-embedding", "**text-embeddings-inference** opens it with the same vectors\n\n**vLLM** opens it"),
        ("old-lasttoken", "it runs on CUDA, in float16"),
        ("exclude-prompt-mean", "the text has no prompt or instruction: those are pooled, too"),
        ("exclude-prompt-weightedmean", "**text-embeddings-inference** does not open it\n- it has no `weightedmean`"),
        ("exclude-prompt-weightedmean", "**vLLM** opens it, but with other vectors\n- it pools the last token instead"),
        ("llama-nemotron-embed", "it does not support the rotary embeddings `llama3` of this model"),
        (
            "dense-tanh",
            "**sentence-transformers 6** opens it with the same vectors, if\n- `encode` gets `normalize_emb",
        ),
        ("dense-tanh", "- the client normalizes the vectors"),
        ("default-prompt", "it is started with `--default-prompt-name document`"),
        ("truncate-dim", "a request sets `dimensions` to 16"),
    ],
)
def test_the_readme_says_what_other_servers_make_of_it(name: str, said: str, tmp_path: Path) -> None:
    export(load(str(FAMILIES / "stacks" / name), dtype="float32", prepack=False), tmp_path / "out")
    assert said in (tmp_path / "out/README.md").read_text()


def test_a_layer_that_llm2vec_does_not_know_is_refused(tmp_path: Path) -> None:
    encoder = load(str(FAMILIES / "stacks/voyage-4-nano"), dtype="float32", prepack=False, semantics="llm2vec")
    with pytest.raises(ModelError, match=r"linear\.weight, a layer after the decoder, cannot be exported"):
        export(encoder, tmp_path / "out")
