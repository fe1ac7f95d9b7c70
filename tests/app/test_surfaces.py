"""The wire format of the OpenAI and TEI surfaces: bodies, options, statuses and errors."""

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from l2v.app.engine.errors import TooLargeError
from l2v.app.engine.timings import Timings
from l2v.app.http.endpoints import Call
from l2v.app.http.routes.texts import read_texts
from l2v.models import Encoder, Input
from tests.serving import LocalServer, wait_for


@pytest.fixture
def post(server: LocalServer) -> Callable[..., Any]:
    def send(path: str, expected: int = 200, **content: Any) -> Any:
        response = server.client.post(path, json=content)
        assert response.status_code == expected, response.text
        return response.json()

    return send


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_openai_embeddings(post: Callable[..., Any], encoder: Encoder) -> None:
    content = post("/v1/embeddings", input=["hello", "world"], model="any", user="someone")
    assert content["object"] == "list"
    assert [item["index"] for item in content["data"]] == [0, 1]
    expected = unit(encoder.encode([Input("hello"), Input("world")]))
    np.testing.assert_allclose([item["embedding"] for item in content["data"]], expected, atol=1e-5)
    assert content["usage"] == {"prompt_tokens": 12, "total_tokens": 12}


def test_openai_accepts_token_ids(post: Callable[..., Any], encoder: Encoder) -> None:
    ids = [list(encoder.tokenize([Input(text)])[0].ids) for text in ("hello", "world")]
    expected = unit(encoder.encode([Input("hello"), Input("world")]))
    for given, rows in ((ids, expected), (ids[0], expected[:1])):
        data = post("/v1/embeddings", input=given)["data"]
        np.testing.assert_allclose([item["embedding"] for item in data], rows, atol=1e-5)
    error = post("/v1/embeddings", 400, input=[ids[0], [9999]])["error"]
    assert error["param"] == "input[1]"


def test_openai_dimensions_base64_and_extensions(post: Callable[..., Any], encoder: Encoder) -> None:
    content = post("/v1/embeddings", input="hello", dimensions=8, encoding_format="base64", instruction="Find:")
    vector = np.frombuffer(base64.b64decode(content["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(vector, unit(encoder.encode([Input("hello", "Find:")])[0][:8]), atol=1e-5)


def test_openai_accepts_null_as_encoding_format(post: Callable[..., Any]) -> None:
    """LiteLLM and Dify send it."""
    assert isinstance(post("/v1/embeddings", input="hello", encoding_format=None)["data"][0]["embedding"], list)


def test_openai_rejects_texts_that_are_too_long(post: Callable[..., Any]) -> None:
    error = post("/v1/embeddings", 400, input=["short", "word " * 500])["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "input[1].text"
    assert error["code"] is None
    assert len(post("/v1/embeddings", input=["word " * 500], truncate=True)["data"]) == 1


@pytest.mark.parametrize(
    ("content", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [1.5]}, "input[0]"),
        ({"input": "a", "dimensions": 999}, "dimensions"),
        ({"input": "a", "colour": 1}, "colour"),
    ],
)
def test_openai_errors(post: Callable[..., Any], content: dict[str, Any], param: str) -> None:
    error = post("/v1/embeddings", 400, **content)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_openai_models(server: LocalServer) -> None:
    listed = server.client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["demo"]
    assert server.client.get("/v1/models/demo").json() == listed[0]
    assert server.client.get("/v1/models/gpt").status_code == 404
    counted = 'l2v_requests_total{model="",route="/v1/models/{name}",status="404"} '
    # A label never contains a path that a caller chose. A request is counted after its response.
    wait_for(lambda: counted in server.client.get("/metrics").text, what="the count")


def test_tei_embed(post: Callable[..., Any], encoder: Encoder) -> None:
    raw = encoder.encode([Input("hello"), Input("world")])
    for path in ("/tei", "/tei/embed"):
        np.testing.assert_allclose(post(path, inputs=["hello", "world"]), unit(raw), atol=1e-5)
    np.testing.assert_allclose(post("/tei/embed", inputs="hello"), unit(raw[:1]), atol=1e-5)
    np.testing.assert_allclose(post("/tei/embed", inputs="hello", normalize=False), raw[:1], atol=1e-5)
    np.testing.assert_allclose(post("/tei/embed", inputs="hello", dimensions=4), unit(raw[:1, :4]), atol=1e-5)
    post("/tei/embed", inputs="hello", parameters={"unknown": 1})


def test_tei_embed_all_returns_every_token(post: Callable[..., Any], encoder: Encoder) -> None:
    short, long = post("/tei/embed_all", inputs=["hi", "hello"])
    assert (len(short), len(long)) == (3, 6)
    raw = encoder.encode([Input("hello")])[0]
    np.testing.assert_allclose(np.mean(long[1:], axis=0), raw, atol=1e-5)


def test_tei_similarity(post: Callable[..., Any]) -> None:
    scores = post("/tei/similarity", inputs={"source_sentence": "hello", "sentences": ["hello", "other"]})
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert scores[1] < 0.99
    inputs = {"source_sentence": "hello", "sentences": ["hello", "other"]}
    assert post("/tei/similarity", inputs=inputs, parameters=None) == scores


def test_tei_truncation_direction(post: Callable[..., Any]) -> None:
    words = [f"w{i:03}" for i in range(200)]  # 5 tokens each, so 80 words are kept
    text = " ".join(words)
    right, left = (post("/tei/embed", inputs=text, truncation_direction=direction) for direction in ("right", "Left"))
    assert np.array(right) @ np.array(left).T < 0.9999
    assert post("/tei/embed", inputs=" ".join(words[: _kept(words)])) == right
    assert post("/tei/embed", inputs=" ".join(words[-_kept(words) :])) == left


def _kept(words: list[str]) -> int:
    """The reference's truncation loop, for words of one length and one token per character."""
    kept = len(words)
    while (tokens := min(512, kept * 5 - 1)) > 400:
        kept = int(kept * 400 / tokens)
    return kept


def test_tei_tokenize_and_decode_are_inverse(post: Callable[..., Any]) -> None:
    (tokens,) = post("/tei/tokenize", inputs="hello")
    assert tokens[0] == {"id": 256, "text": "<s>", "special": True, "start": None, "stop": None}
    assert [(token["start"], token["stop"]) for token in tokens[1:]] == [(i, i + 1) for i in range(5)]
    ids = [token["id"] for token in tokens]
    assert post("/tei/decode", ids=ids) == ["hello"]
    assert post("/tei/decode", ids=[ids, ids], skip_special_tokens=False) == ["<s>hello"] * 2
    assert len(post("/tei/tokenize", inputs=["hello", "hi"], add_special_tokens=False)[1]) == 2


def test_tei_tokenize_shows_the_text_of_a_token(post: Callable[..., Any]) -> None:
    """Not the symbols that the vocabulary uses for bytes, of which é has two."""
    (tokens,) = post("/tei/tokenize", inputs="a é", add_special_tokens=False)
    assert [token["text"] for token in tokens] == ["a", " ", "é", "é"]


def test_tei_decode_names_the_row(post: Callable[..., Any]) -> None:
    assert post("/tei/decode", 413, ids=[[97], [97, 9999]])["error"].startswith(
        "Invalid value for 'ids[1]': 9999 is not"
    )
    assert post("/tei/decode", 413, ids=[9999])["error"].startswith("Invalid value for 'ids': 9999 is not")


def test_the_text_of_token_ids_is_limited_to_max_body_bytes(encoder: Encoder) -> None:
    """A vocabulary may have tokens of a hundred characters. Here, the longest has three."""
    with LocalServer(encoder, max_body_bytes=1000) as server:
        rows, model = [[256] * 200] * 2, server.service.models.find()
        call = Call(server.service, {"timings": Timings(), "reserve": lambda size: None})
        with pytest.raises(TooLargeError, match="stand for more than 1000 characters") as rejected:
            asyncio.run(read_texts(call, model, "ids", rows))
        assert rejected.value.param == "ids[1]"
        assert asyncio.run(read_texts(call, model, "ids", rows[:1])) == [""]


def test_tei_info_health_and_metrics(server: LocalServer, encoder: Encoder) -> None:
    info = server.client.get("/tei/info").json()
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == 512
    assert info["model_dtype"] == encoder.dtype
    for path in ("/tei/health", "/tei/ping", "/tei/", "/tei"):
        assert server.client.get(path).status_code == 200
    assert server.client.head("/tei/health").status_code == 200
    assert "l2v_requests_total" in server.client.get("/tei/metrics").text


@pytest.mark.parametrize(
    ("path", "content", "status", "kind"),
    [
        ("/tei/embed", {"inputs": []}, 400, "Empty"),
        ("/tei/embed", {"inputs": ""}, 400, "Empty"),
        ("/tei/embed", {"inputs": 5}, 413, "Validation"),
        ("/tei/embed", {"inputs": ["a"] * 3000}, 413, "Validation"),
        ("/tei/embed", {"inputs": "word " * 500, "truncate": False}, 413, "Validation"),
        ("/tei/embed_all", {"inputs": ["word " * 90] * 12}, 413, "Validation"),
        ("/tei/tokenize", {"inputs": "x" * 200_000}, 413, "Validation"),
        ("/tei/tokenize", {"inputs": ["a"] * 3000}, 413, "Validation"),
        ("/tei/embed", {"inputs": "a", "prompt_name": "nope"}, 413, "Validation"),
        ("/tei/decode", {"ids": [99999]}, 413, "Validation"),
        ("/tei/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty"),
        ("/tei/tokenize", {"inputs": []}, 400, "Empty"),
        ("/tei/tokenize", {"inputs": ["a", ""]}, 400, "Empty"),
        ("/tei/decode", {"ids": [[]]}, 400, "Empty"),
    ],
)
def test_tei_errors(post: Callable[..., Any], path: str, content: dict[str, Any], status: int, kind: str) -> None:
    error = post(path, status, **content)
    assert error.keys() == {"error", "error_type"}
    assert error["error_type"] == kind


def test_tei_errors_name_the_field_in_the_message(post: Callable[..., Any]) -> None:
    assert post("/tei/embed", 413) == {"error": "Missing required parameter: 'inputs'.", "error_type": "Validation"}
    assert post("/tei/embed", 413, inputs="a", truncate="yes")["error"].startswith("Invalid type for 'truncate': ")
    message = "Invalid value for 'inputs': 3000 inputs; the maximum is 2048 (max_inputs)."
    assert post("/tei/embed", 413, inputs=["a"] * 3000)["error"] == message


def test_one_row_of_token_ids_is_one_input(post: Callable[..., Any]) -> None:
    assert len(post("/v1/embeddings", input=[97, 98])["data"]) == 1
    error = post("/v1/embeddings", 400, input=[97, 98], instruction="x" * 600)["error"]
    assert error["param"] == "instruction"
    assert post("/v1/embeddings", 400, input=[97] * 500, truncate=False)["error"]["param"] == "input"


def test_teis_openai_path_returns_tei_errors(post: Callable[..., Any]) -> None:
    assert post("/tei/v1/embeddings", 400, input="") == {
        "message": "Invalid value for 'input': must not be empty or blank.",
        "code": 400,
        "type": "Empty",
    }
    assert len(post("/tei/v1/embeddings", input=["a", "b"])["data"]) == 2
    # Unlike OpenAI's surface, it truncates long texts and ignores unknown fields, as TEI's other paths do.
    assert len(post("/tei/v1/embeddings", input=["word " * 500], odd=1)["data"]) == 1
    assert post("/tei/v1/embeddings", 413, input=["word " * 500], truncate=False)["type"] == "Validation"


def test_the_tei_base_url_may_end_in_a_slash(post: Callable[..., Any]) -> None:
    assert post("/tei/", inputs="a") == post("/tei", inputs="a")


def test_tei_has_two_openai_paths(post: Callable[..., Any]) -> None:
    assert post("/tei/embeddings", input="a") == post("/tei/v1/embeddings", input="a")
    assert post("/tei/embeddings", 400, input="")["type"] == "Empty"


def test_named_prompts_in_every_surface(encoder: Encoder, tmp_path: Any) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"sts": "Retrieve similar text:", "query": "overridden"}')
    with LocalServer(encoder, prompts=file, query_instruction="Find:", document_instruction="Passage:") as server:

        def send(path: str, **content: Any) -> Any:
            return server.client.post(path, json=content)

        assert server.client.get("/prompts").json() == {
            "prompts": {"sts": "Retrieve similar text:", "query": "Find:", "document": "Passage:"}
        }
        expected = unit(encoder.encode([Input("hello", "Retrieve similar text:")]))
        for vectors in (
            send("/embed", inputs="hello", prompt_name="sts").json()["embeddings"],
            [send("/v1/embeddings", input="hello", prompt_name="sts").json()["data"][0]["embedding"]],
            send("/tei/embed", inputs="hello", prompt_name="sts").json(),
        ):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert len(send("/tei/tokenize", inputs="a", prompt_name="sts").json()[0]) == len("<Retrieve similar text: a")
        # By default, /embed uses no instruction, and /similarity uses the configured ones.
        np.testing.assert_allclose(
            send("/embed", inputs="hello").json()["embeddings"], unit(encoder.encode([Input("hello")])), atol=1e-5
        )
        left, right = unit(encoder.encode([Input("a", "Find:"), Input("b", "Passage:")]))
        texts = {"queries": "a", "documents": "b"}
        assert send("/similarity", **texts).json()["scores"][0][0] == pytest.approx(float(left @ right), abs=1e-5)
        left, right = unit(encoder.encode([Input("a"), Input("b", "Retrieve similar text:")]))
        response = send("/similarity", **texts, query_instruction="", document_prompt_name="sts").json()
        assert response["scores"][0][0] == pytest.approx(float(left @ right), abs=1e-5)
        for content, param in (
            ({"inputs": "a", "prompt_name": "nope"}, "prompt_name"),
            ({"inputs": "a", "prompt_name": "sts", "instruction": "x"}, "prompt_name"),
        ):
            assert send("/embed", **content).json()["error"]["param"] == param
        assert send("/similarity", queries="a", document_prompt_name="sts").json()["error"]["param"] == (
            "document_prompt_name"
        )
        long = "x" * 600
        for content, param in (
            (texts | {"query_instruction": long}, "query_instruction"),
            (texts | {"document_instruction": long}, "document_instruction"),
            ({"queries": ["a", [long, "b"]]}, "queries[1].instruction"),
        ):
            assert send("/similarity", **content).json()["error"]["param"] == param


def test_cors_is_disabled_by_default(server: LocalServer, encoder: Encoder) -> None:
    origin = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in server.client.options("/embed", headers=origin).headers
    with LocalServer(encoder, cors_origins="https://a.example", api_keys="sesame") as open_server:
        response = open_server.client.options("/embed", headers=origin)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "https://a.example")
        rejected = open_server.client.post("/embed", json={"inputs": "a"}, headers=origin)
        assert (rejected.status_code, rejected.headers["access-control-allow-origin"]) == (401, "https://a.example")
        other = open_server.client.options("/embed", headers=origin | {"Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/l2v/embed", "/l2v/v1/embeddings", "/l2v/tei/embed"])
def test_a_path_behind_a_prefix_is_served(path: str, server: LocalServer) -> None:
    """Ray and other servers keep the prefix in the path, and name it in `root_path`."""

    async def call(content: dict[str, Any]) -> httpx.Response:
        transport = httpx.ASGITransport(app=server.app, root_path="/l2v")
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post(path, json=content)

    assert asyncio.run(call({"input" if "v1" in path else "inputs": "hello"})).status_code == 200
    refused = asyncio.run(call({"colour": "red"}))
    assert refused.status_code in (400, 413, 422)  # by surface
    assert "colour" in refused.text or "input" in refused.text


def test_a_line_break_at_the_end_of_a_path_is_no_bug(server: LocalServer) -> None:
    """Starlette's routes match before it."""
    assert server.client.post("/embed%0A", json={"inputs": "hello"}).status_code in (200, 404)
