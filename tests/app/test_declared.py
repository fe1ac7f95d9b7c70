"""The prompts, the metric and the sizes that a model declares, in the service and in the commands."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2v.models import Encoder, Input, load
from tests.bulk.shell import call
from tests.conftest import PARITY
from tests.serving import LocalServer

FAMILIES = PARITY / "families" / "stacks"
# Its prompts are `query` ("Find the answer:") and `document` ("The document: "), the second its default.
PROMPTED = FAMILIES / "default-prompt"
QUERY, DOCUMENT = "Find the answer:", "The document: "


@pytest.fixture(scope="module")
def prompted() -> Encoder:
    return load(str(PROMPTED), dtype="float32")


@pytest.fixture(scope="module")
def server(prompted: Encoder) -> Iterator[LocalServer]:
    with LocalServer(prompted) as running:
        yield running


def vector(encoder: Encoder, text: str, instruction: str) -> np.ndarray:
    (embedded,) = encoder.encode([Input(text, instruction)])
    return embedded / np.linalg.norm(embedded)  # type: ignore[no-any-return]


def send(server: LocalServer, path: str, **content: Any) -> Any:
    response = server.client.post(path, json=content)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_precedence_of_instructions_and_prompts(server: LocalServer, prompted: Encoder) -> None:
    own = {"text": "hello", "instruction": "own: "}
    for inputs, fields, instruction in (
        (own, {"instruction": "request: "}, "own: "),
        (own, {"prompt_name": "query"}, "own: "),
        ({"text": "hello", "instruction": ""}, {}, ""),
        ([["", "hello"]], {"prompt_name": "query"}, ""),
        ("hello", {"instruction": "request: "}, "request: "),
        ("hello", {"instruction": ""}, ""),
        ("hello", {"prompt_name": "query"}, QUERY),
        ("hello", {}, DOCUMENT),
    ):
        (embedded,) = server.embed(inputs, **fields)["embeddings"]
        np.testing.assert_allclose(embedded, vector(prompted, "hello", instruction), atol=1e-5)
    assert server.client.get("/prompts").json() == {"prompts": {"query": QUERY, "document": DOCUMENT}}


def test_queries_and_documents_have_their_own_prompts(server: LocalServer, prompted: Encoder) -> None:
    sides = {"queries": "a cat", "documents": "a dog"}
    for fields, query, document in (
        ({}, QUERY, DOCUMENT),
        ({"query_instruction": "", "document_prompt_name": "query"}, "", QUERY),
        ({"query_instruction": "Find: "}, "Find: ", DOCUMENT),
    ):
        score = send(server, "/similarity", **sides, **fields)["scores"][0][0]
        expected = vector(prompted, "a cat", query) @ vector(prompted, "a dog", document)
        assert score == pytest.approx(float(expected), abs=1e-5)
    each = send(server, "/similarity", queries=[["x: ", "a cat"]], documents=[["", "a dog"]])["scores"][0][0]
    assert each == pytest.approx(float(vector(prompted, "a cat", "x: ") @ vector(prompted, "a dog", "")), abs=1e-5)


def test_every_surface_uses_the_default_prompt(server: LocalServer, prompted: Encoder) -> None:
    expected = vector(prompted, "hello", DOCUMENT)
    for embedded in (
        send(server, "/v1/embeddings", input="hello")["data"][0]["embedding"],
        send(server, "/tei/embed", inputs="hello")[0],
        send(server, "/tei/v1/embeddings", input="hello")["data"][0]["embedding"],
    ):
        np.testing.assert_allclose(embedded, expected, atol=1e-5)
    tokens = [token["id"] for token in send(server, "/tei/tokenize", inputs="hello")[0]]
    assert tokens == list(prompted.tokenize([Input("hello", DOCUMENT)])[0].ids)


def test_settings_override_the_models_prompts(prompted: Encoder, tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps({"document": "", "own": "Own: "}))
    with LocalServer(prompted, prompts=tmp_path / "prompts.json", query_instruction="Q: ") as configured:
        expected = {"query": "Q: ", "document": "", "own": "Own: "}
        assert configured.client.get("/prompts").json() == {"prompts": expected}
        (embedded,) = configured.embed("hello")["embeddings"]
        np.testing.assert_allclose(embedded, vector(prompted, "hello", ""), atol=1e-5)


def test_info_shows_each_setting_with_its_origin(server: LocalServer) -> None:
    info = server.client.get("/info").json()
    assert info["attention"] == "causal"
    assert info["settings"]["attention"] == {"value": "causal", "origin": "modules.json"}
    assert info["settings"]["pooling"] == {"value": "mean", "origin": "1_Pooling/config.json"}
    assert info["settings"]["default_prompt_name"] == {
        "value": "document",
        "origin": "config_sentence_transformers.json",
    }


def test_the_commands_use_the_prompts(
    prompted: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str], server: LocalServer
) -> None:
    model = ["--model", PROMPTED, "--dtype", "float32"]
    (tmp_path / "texts.jsonl").write_text('{"text": "a cat"}\n{"text": "a dog", "instruction": "own: "}\n')
    for flags, instructions in (
        ([], (DOCUMENT, DOCUMENT)),
        (["--instruction", ""], ("", "")),
        (["--prompt-name", "query", "--instruction-column", "instruction"], (QUERY, "own: ")),
    ):
        out = tmp_path / "out.npy"
        ended = call(capsys, "embed", tmp_path / "texts.jsonl", out, *model, *flags, "--overwrite")
        assert ended.status == 0, ended.err
        expected = [
            vector(prompted, text, before) for text, before in zip(["a cat", "a dog"], instructions, strict=True)
        ]
        np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    ended = call(capsys, "embed", tmp_path / "texts.jsonl", tmp_path / "none.npy", *model, "--prompt-name", "none")
    assert (ended.status, "its prompts: document, query" in ended.err) == (2, True)

    expected_score = float(vector(prompted, "a cat", QUERY) @ vector(prompted, "a dog", DOCUMENT))
    for where in (model, ["--url", server.url]):
        (row,) = json.loads(call(capsys, "similarity", "a cat", "a dog", "--json", *where).out)
        assert row["score"] == pytest.approx(expected_score, abs=1e-5)
    tokens = json.loads(call(capsys, "tokenize", "a cat", "--json", *model).out)
    assert [token["id"] for token in tokens] == list(prompted.tokenize([Input("a cat", DOCUMENT)])[0].ids)
    assert all(token["pooled"] for token in tokens)


def test_the_declared_metric_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    """The model declares `dot`, and its last module normalizes vectors, so their product is the cosine."""
    folder = FAMILIES / "old-lasttoken"
    encoder = load(str(folder), dtype="float32")
    expected = float(vector(encoder, "a cat", "") @ vector(encoder, "a dog", ""))
    with LocalServer(encoder) as running:
        for fields in ({}, {"metric": "dot"}, {"metric": "cosine"}):
            (score,) = send(running, "/similarity", queries="a cat", documents="a dog", **fields)["scores"][0]
            assert score == pytest.approx(expected, abs=1e-5)
    (row,) = json.loads(call(capsys, "similarity", "a cat", "a dog", "--json", "--model", folder).out)
    assert row["score"] == pytest.approx(expected, abs=1e-2)


def test_vectors_have_the_declared_or_the_requested_size() -> None:
    encoder = load(str(FAMILIES / "truncate-dim"), dtype="float32")
    whole = encoder.forward(encoder.tokenize([Input("a cat"), Input("a dog")]))
    with LocalServer(encoder) as running:
        info = running.client.get("/info").json()
        assert (info["dimensions"], info["settings"]["matryoshka_dimensions"]["value"]) == (16, [8, 16, 32])
        for dimensions in (None, 8, 32):
            answer = running.embed(["a cat", "a dog"], dimensions=dimensions, normalize=False)
            assert answer["dimensions"] == (dimensions or 16)
            np.testing.assert_allclose(answer["embeddings"], [row[: dimensions or 16] for row in whole], atol=1e-5)
        response = running.client.post("/embed", json={"inputs": "a cat", "dimensions": 12})
        assert response.status_code == 422
        assert "must be one of 8, 16, 32" in response.json()["error"]["message"]
        left, right = (row[:16] / np.linalg.norm(row[:16]) for row in whole)
        (score,) = send(running, "/similarity", queries="a cat", documents="a dog")["scores"][0]
        assert score == pytest.approx(float(left @ right), abs=1e-5)


def test_the_start_warns_once_about_vectors_that_no_longer_match(
    prompted: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with LocalServer(prompted):
        pass
    (warning,) = [message for message in caplog.messages if "l2v 0.1" in message]
    assert "attention causal" in warning
    assert "set L2V_SEMANTICS=llm2vec" in warning
