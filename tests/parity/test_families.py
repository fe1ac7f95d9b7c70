"""Checkpoints in published layouts, compared with sentence-transformers 6 (see families/), also through HTTP."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2v.models import Encoder, Input, UnsupportedModelError, load
from tests.conftest import PARITY
from tests.parity.hub import make_hub_cache
from tests.serving import LocalServer

TOLERANCE = 1e-4
FOLDER = PARITY / "families"
GOLDENS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (FOLDER / "goldens").glob("*.json")}
# Every text is rendered through the chat template of its tokenizer.
REFUSED = ["st6-chat-template"]
SERVED = sorted(GOLDENS.keys() - set(REFUSED))
LLM2VEC = [name for name in SERVED if GOLDENS[name]["semantics"] == "llm2vec"]
# sentence-transformers' names → ours.
POOLINGS = {"mean": "mean", "weightedmean": "weighted_mean", "lasttoken": "last_token", "cls": "bos_token"}


@pytest.fixture(scope="module", autouse=True)
def bases(hub: Path) -> None:
    make_hub_cache(hub, {GOLDENS[name]["declared"]["base"]: FOLDER / "stacks" / name / "base" for name in LLM2VEC})


@functools.cache
def encoder(name: str) -> Encoder:
    folder = FOLDER / "stacks" / name
    if name in LLM2VEC:
        return load(str(folder / "mntp"), [str(folder / "simcse")], dtype="float32")
    return load(str(folder), dtype="float32")


def unit(vectors: Any) -> np.ndarray:
    array = np.array(vectors, np.float64)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)  # type: ignore[no-any-return]


def differences(rows: list[dict[str, Any]], vectors: Any) -> dict[str, float]:
    """The rows whose direction differs, by name."""
    found = np.abs(unit(vectors) - unit([row["vector"] for row in rows])).max(axis=1)
    return {f"{row['name']} {row['request']}": d for row, d in zip(rows, found.tolist(), strict=True) if d > TOLERANCE}


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
    requests: dict[str, list[dict[str, Any]]] = {}
    for row in golden["rows"]:
        requests.setdefault(json.dumps(row["request"]), []).append(row)
    with LocalServer(encoder(name)) as server:
        for request, rows in requests.items():
            fields = {{"prompt": "instruction"}.get(key, key): value for key, value in json.loads(request).items()}
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
