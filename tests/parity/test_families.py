"""Checkpoints in published layouts, compared with sentence-transformers 6 (see families/), also through HTTP."""

import functools
from pathlib import Path

import numpy as np
import pytest

from l2v.models import Encoder, Input, UnsupportedModelError, load
from tests.parity.families_goldens import (
    FAMILIES,
    GOLDENS,
    LLM2VEC,
    REFUSED,
    SERVED,
    TOLERANCE,
    by_request,
    differences,
)
from tests.parity.hub import make_hub_cache
from tests.serving import LocalServer

# sentence-transformers' names → ours.
POOLINGS = {"mean": "mean", "weightedmean": "weighted_mean", "lasttoken": "last_token", "cls": "bos_token"}


@pytest.fixture(scope="module", autouse=True)
def bases(hub: Path) -> None:
    make_hub_cache(hub, {GOLDENS[name]["declared"]["base"]: FAMILIES / "stacks" / name / "base" for name in LLM2VEC})


@functools.cache
def encoder(name: str) -> Encoder:
    folder = FAMILIES / "stacks" / name
    if name in LLM2VEC:
        return load(str(folder / "mntp"), [str(folder / "simcse")], dtype="float32")
    return load(str(folder), dtype="float32")


@pytest.mark.parametrize("name", SERVED)
def test_rows_and_vectors_equal_the_reference(name: str) -> None:
    golden, served = GOLDENS[name], encoder(name)
    rows = golden["rows"]
    encodings = served.tokenize([Input(row["text"], row["prompt"] or "") for row in rows])
    assert [list(encoding.ids) for encoding in encodings] == [row["ids"] for row in rows]
    pooled = [row.get("pooled", len(row["ids"]) - row.get("excluded", 0)) for row in rows]
    assert [encoding.pooled for encoding in encodings] == pooled
    vectors = served.encode([Input(row["text"], row["prompt"] or "") for row in rows])
    assert not differences(rows, vectors)
    if not golden["normalised"] and golden["declared"].get("truncate_dim") is None:
        np.testing.assert_allclose(vectors, [row["vector"] for row in rows], atol=TOLERANCE)


@pytest.mark.parametrize("name", SERVED)
def test_the_service_gives_the_same_with_each_prompt_and_without(name: str) -> None:
    golden = GOLDENS[name]
    with LocalServer(encoder(name)) as server:
        for request, rows in by_request(golden):
            fields = {{"prompt": "instruction"}.get(key, key): value for key, value in request.items()}
            answer = server.embed([row["text"] for row in rows], **fields)
            assert answer["tokens"] == [len(row["ids"]) for row in rows]
            assert not differences(rows, answer["embeddings"])
            np.testing.assert_allclose(np.linalg.norm(answer["embeddings"], axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in SERVED if name not in LLM2VEC])
def test_what_a_repository_declares_is_served_with_its_origin(name: str) -> None:
    declared, described = GOLDENS[name]["declared"], encoder(name).describe()
    settings = {key: each["value"] for key, each in described["settings"].items()}
    assert (
        settings
        | {
            "attention": declared["attention"],
            "pooling": POOLINGS[declared["pooling"]],
            "skip_instruction": not declared["include_prompt"],
            "max_length": declared["max_length"],
            "default_prompt_name": declared["default_prompt_name"],
            "similarity": declared["similarity"],
            "truncate_dim": declared["truncate_dim"],
            "semantics": "sentence-transformers",
        }
        == settings
    )
    assert {key: text for key, text in settings["prompts"].items() if text} == {
        key: text for key, text in declared["prompts"].items() if text
    }
    assert described["dimensions"] == GOLDENS[name]["dimensions"]
    assert described["attention"] == declared["attention"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="modality `message`"):
        encoder(name)
