"""The fields of requests: honoured, accepted without effect, or rejected by name; null means absent."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import jsonschema_rs
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from pydantic import BaseModel

from l2v.app.http.schemas import native, openai, tei
from l2v.app.http.schemas.fields import NoEffect, Rejected
from l2v.models import Encoder, Input
from tests.serving import LocalServer

REQUESTS: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    "/embed": (native.EmbedRequest, {"inputs": "a"}),
    "/similarity": (native.SimilarityRequest, {"queries": ["a", "b"]}),
    "/tokenize": (native.TokenizeRequest, {"inputs": "a"}),
    "/v1/embeddings": (openai.EmbeddingsRequest, {"input": "a"}),
    "/tei/v1/embeddings": (tei.OpenaiRequest, {"input": "a"}),
    "/tei/embed": (tei.TeiEmbedRequest, {"inputs": "a"}),
    "/tei": (tei.TeiEmbedRequest, {"inputs": "a"}),
    "/tei/embed_all": (tei.EmbedAllRequest, {"inputs": "a"}),
    "/tei/similarity": (tei.TeiSimilarityRequest, {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
    "/tei/tokenize": (tei.TeiTokenizeRequest, {"inputs": "a"}),
    "/tei/decode": (tei.DecodeRequest, {"ids": [97]}),
}
WORDS = [f"w{i:03}" for i in range(200)]  # 5 tokens each with its space
LONG = " ".join(WORDS)


def marked(kind: type[NoEffect] | type[Rejected]) -> dict[str, Any]:
    """The fields of `POST /v1/embeddings` that are marked with this kind, and their marks."""
    fields = openai.EmbeddingsRequest.model_fields.items()
    return {name: mark for name, field in fields for mark in field.metadata if isinstance(mark, kind)}


def embed(server: LocalServer, text: str = "hello", path: str = "/v1/embeddings", **fields: Any) -> list[float]:
    response = server.client.post(path, json={"input": text, **fields})
    assert response.status_code == 200, response.text
    vector: list[float] = response.json()["data"][0]["embedding"]
    return vector


def error(server: LocalServer, **fields: Any) -> dict[str, Any]:
    response = server.client.post("/v1/embeddings", json={"input": "hello", **fields})
    assert response.status_code == 400, response.text
    found: dict[str, Any] = response.json()["error"]
    return found


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("path", REQUESTS)
def test_null_means_absent_for_every_optional_field(path: str, server: LocalServer) -> None:
    schema, content = REQUESTS[path]
    optional = {name: None for name, field in schema.model_fields.items() if not field.is_required()}
    absent, null = (server.client.post(path, json=content | each) for each in ({}, optional))
    assert (null.status_code, null.json()) == (200, absent.json())
    assert jsonschema_rs.validator_for(schema.model_json_schema()).is_valid(content | optional)


def test_null_means_absent_in_nested_objects(server: LocalServer) -> None:
    one, other = (server.embed([{"text": "a", **more}], instruction="Find:") for more in ({}, {"instruction": None}))
    assert one == other
    body = REQUESTS["/tei/similarity"][1] | {"parameters": {"truncation_direction": None, "truncate": None}}
    assert server.client.post("/tei/similarity", json=body).status_code == 200


@pytest.mark.parametrize("path", REQUESTS)
def test_the_list_of_fields_is_complete(path: str, server: LocalServer) -> None:
    """Any other field is rejected by name; under /tei, it has no effect, as in TEI."""
    content = REQUESTS[path][1]
    response = server.client.post(path, json=content | {"colour": "red"})
    if path.startswith("/tei"):
        assert (response.status_code, response.json()) == (200, server.client.post(path, json=content).json())
    else:
        assert (response.status_code, response.json()["error"]["param"]) == (422 if path[1] != "v" else 400, "colour")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/tei/v1/embeddings"])
def test_some_fields_have_no_effect(path: str, server: LocalServer) -> None:
    assert {"user", "metadata", "max_tokens", "drop_params"} <= marked(NoEffect).keys()
    expected = embed(server, path=path)
    for value in (1, "a", {"a": ["b"]}, True):
        assert embed(server, path=path, **dict.fromkeys(marked(NoEffect), value)) == expected


@pytest.mark.parametrize("name", marked(Rejected))
def test_some_fields_are_rejected_with_an_alternative(name: str, server: LocalServer) -> None:
    mark = marked(Rejected)[name]
    fault = error(server, **{name: ["x"]})
    assert fault["param"] == name
    assert fault["message"].startswith("Unsupported ")
    assert f"'{name}'" in fault["message"]
    assert fault["message"].endswith(f" {mark.reason}.")
    for value in mark.allowed:
        assert embed(server, **{name: value}) == embed(server)
        assert error(server, **{name: int(value) if isinstance(value, bool) else f"{value}x"})["param"] == name
    assert len(embed(server, path="/tei/v1/embeddings", **{name: ["x"]})) == 32  # ignored, as in TEI


def test_input_type_selects_a_prompt(encoder: Encoder, server: LocalServer) -> None:
    expected = {
        text: unit(encoder.encode([Input("hello", text)])[0]) for text in ("", "Find:", "Passage:", "Other:", "Sts:")
    }
    assert embed(server, input_type="query") == embed(server, task="retrieval.query") == embed(server)
    with LocalServer(encoder, query_instruction="Find:", document_instruction="Passage:") as prompted:
        for fields, instruction in (
            ({"input_type": "query"}, "Find:"),
            ({"input_type": "search_query"}, "Find:"),
            ({"task": "retrieval.query"}, "Find:"),
            ({"input_type": "document"}, "Passage:"),
            ({"input_type": "search_document"}, "Passage:"),
            ({"input_type": "passage"}, "Passage:"),
            ({"task": "retrieval.passage"}, "Passage:"),
            ({"input_type": "query", "instruction": "Other:"}, "Other:"),
            ({"input_type": "query", "instruction": ""}, ""),
            ({"input_type": "query", "prompt_name": "document"}, "Passage:"),
            ({}, ""),
        ):
            for path in ("/v1/embeddings", "/tei/v1/embeddings"):
                np.testing.assert_allclose(embed(prompted, path=path, **fields), expected[instruction], atol=1e-5)
    for name, value in (("input_type", "classification"), ("task", "text-matching")):
        fault = error(server, **{name: value})
        assert fault["param"] == name
        assert "expected 'query'" in fault["message"] or "expected 'retrieval.query'" in fault["message"]


def test_either_side_can_be_truncated(encoder: Encoder, server: LocalServer) -> None:
    end, start = (unit(encoder.encode([Input(LONG, keep_end=keep_end)])[0]).tolist() for keep_end in (False, True))
    assert not np.allclose(end, start, atol=1e-3)
    for fields, expected in (
        ({"truncate": True}, end),
        ({"truncate": "END"}, end),
        ({"truncate": "START"}, start),
        ({"truncate": True, "truncation_side": "left"}, start),
        ({"truncate": "END", "truncation_side": "left"}, end),
        ({"truncate_prompt_tokens": -1}, end),
        ({"truncate_prompt_tokens": 5000}, end),
        ({"truncate_prompt_tokens": -1, "truncation_side": "left"}, start),
    ):
        np.testing.assert_allclose(embed(server, LONG, **fields), expected, atol=1e-5)
    np.testing.assert_allclose(embed(server, LONG, "/tei/v1/embeddings"), end, atol=1e-5)
    np.testing.assert_allclose(embed(server, LONG, "/tei/v1/embeddings", truncate="START"), start, atol=1e-5)
    same = server.client.post("/tei/embed", json={"inputs": LONG, "truncation_direction": "left"}).json()[0]
    np.testing.assert_allclose(start, same, atol=1e-5)
    for fields in ({}, {"truncate": False}, {"truncate": "NONE"}, {"truncation_side": "left"}, {"truncate": None}):
        assert error(server, input=LONG, **fields)["param"] == "input"


def test_texts_can_be_truncated_to_a_number_of_tokens(encoder: Encoder, server: LocalServer) -> None:
    """The limit includes the row's first token: 21 tokens are that and four words of five tokens."""
    for side, words in (("right", WORDS[:4]), ("left", WORDS[-4:])):
        text = " ".join(words)
        fields = {"truncate_prompt_tokens": 20, "truncation_side": side}
        response = server.client.post("/v1/embeddings", json={"input": [LONG, "short"], **fields}).json()
        np.testing.assert_allclose(response["data"][0]["embedding"], embed(server, text), atol=1e-5)
        assert response["usage"]["prompt_tokens"] == 20 + 6
    assert error(server, truncate_prompt_tokens=1)["message"] == (
        "Invalid value for 'input': text has no room within 1 tokens."
    )
    assert error(server, truncate_prompt_tokens=-2)["param"] == "truncate_prompt_tokens"
    for rejecting in (False, "NONE"):
        assert error(server, truncate_prompt_tokens=9, truncate=rejecting)["param"] == "truncate_prompt_tokens"
    for input_ in (Input("hello", max_tokens=3), Input("hello", "Find:", max_tokens=9)):
        (encoding,) = encoder.tokenize([input_])
        assert (len(encoding), encoding.truncated) == (input_.max_tokens, True)


def test_normalization_can_be_disabled(encoder: Encoder, server: LocalServer) -> None:
    raw = encoder.encode([Input("hello")])[0]
    np.testing.assert_allclose(embed(server, normalize=False), raw, atol=1e-5)
    np.testing.assert_allclose(embed(server, normalize=True), unit(raw), atol=1e-5)


def test_an_empty_instruction_means_none(encoder: Encoder) -> None:
    with LocalServer(encoder, query_instruction="Find:") as server:
        plain, found = (unit(encoder.encode([Input("hello", each)])[0]) for each in ("", "Find:"))
        bare = server.client.post("/embed", json={"inputs": [["", "hello"], "hello"], "instruction": "Find:"}).json()
        np.testing.assert_allclose(bare["embeddings"], [plain, found], atol=1e-5)
        np.testing.assert_allclose(embed(server, instruction=""), plain, atol=1e-5)
        np.testing.assert_allclose(server.embed("hello", instruction="")["embeddings"][0], plain, atol=1e-5)


def test_the_tei_root_accepts_similarity_from_huggingface_hub(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    client = InferenceClient(f"{server.url}/tei")
    scores = client.sentence_similarity("hello", other_sentences=["hello", "other"])
    body = {"inputs": {"source_sentence": "hello", "sentences": ["hello", "other"]}}
    assert scores == server.client.post("/tei/similarity", json=body).json()
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert client.feature_extraction("hello").shape == (1, 32)


@pytest.mark.parametrize(
    ("inputs", "status", "param"),
    [
        ({"source_sentence": "a", "sentences": []}, 400, "inputs.sentences"),
        ({"source_sentence": "a"}, 413, "inputs.sentences"),
        ({"text": "a"}, 413, "inputs.source_sentence"),
        ({}, 413, "inputs.source_sentence"),
        (5, 413, "inputs"),
        (None, 413, "inputs"),
    ],
)
def test_the_tei_root_names_the_field_at_fault(inputs: Any, status: int, param: str, server: LocalServer) -> None:
    response = server.client.post("/tei", json={"inputs": inputs})
    assert (response.status_code, f"'{param}'" in response.json()["error"]) == (status, True)


def test_the_docs_list_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    section = page.partition("### POST /v1/embeddings\n")[2].partition("Response:")[0]
    for name, field in openai.EmbeddingsRequest.model_fields.items():
        (row,) = [line for line in section.splitlines() if line.startswith(f"| `{name}` |")]
        treatments = {NoEffect: "accepted without effect", Rejected: "rejected"}
        expected = next((treatments[type(mark)] for mark in field.metadata if type(mark) in treatments), "")
        assert expected in row
