"""The native API over a real socket: responses, and errors that name the field at fault."""

import base64
import json
import math
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from l2v.app.http.errors import BY_STATUS
from l2v.models import Encoder, Input
from tests.serving import LocalServer

JSON = {"Content-Type": "application/json"}


def cosine(left: Any, right: Any) -> float:
    left, right = np.array(left, np.float64), np.array(right, np.float64)
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_all_forms_of_an_input_are_equivalent(server: LocalServer) -> None:
    single = server.embed("hello", instruction="Find:")["embeddings"]
    for inputs in (["hello"], [["Find:", "hello"]], [{"text": "hello", "instruction": "Find:"}], {"text": "hello"}):
        assert cosine(server.embed(inputs, instruction="Find:")["embeddings"][0], single[0]) > 0.999999
    assert cosine(server.embed(["hello"])["embeddings"][0], single[0]) < 0.999
    own = server.embed([["Other:", "hello"], {"text": "hello", "instruction": ""}], instruction="Find:")["embeddings"]
    assert cosine(own[1], server.embed("hello")["embeddings"][0]) > 0.999999
    assert cosine(own[0], single[0]) < 0.999


def test_a_list_of_two_texts_is_two_inputs(server: LocalServer) -> None:
    assert len(server.embed(["hello", "world"])["embeddings"]) == 2
    inputs = server.client.get("/openapi.json").json()["components"]["schemas"]["EmbedRequest"]["properties"]["inputs"]
    single, many = inputs["oneOf"]
    assert many["type"] == "array"
    assert not any(form.get("type") == "array" for form in single["oneOf"])


def test_embeddings_equal_the_encoders(server: LocalServer, encoder: Encoder) -> None:
    raw = encoder.encode([Input("hello", "Find:")])[0]
    content = server.embed("hello", instruction="Find:", normalize=False)
    np.testing.assert_allclose(content["embeddings"][0], raw, atol=1e-6)
    assert content["dimensions"] == encoder.dimensions == len(content["embeddings"][0])
    assert content["tokens"] == [len("<Find: hello")]  # one token per byte, plus BOS
    assert content["truncated"] == []


def test_dimensions_are_truncated_before_normalising(server: LocalServer, encoder: Encoder) -> None:
    raw = encoder.encode([Input("hello")])[0][:8]
    content = server.embed("hello", dimensions=8)
    assert content["dimensions"] == 8
    np.testing.assert_allclose(content["embeddings"][0], raw / np.linalg.norm(raw), atol=1e-6)


def test_base64_is_little_endian_float32(server: LocalServer) -> None:
    content = server.embed(["hello", "world"])
    packed = server.embed(["hello", "world"], encoding_format="base64")
    for text, vector in zip(packed["embeddings"], content["embeddings"], strict=True):
        np.testing.assert_allclose(np.frombuffer(base64.b64decode(text), "<f4"), vector, atol=1e-6)


def test_truncated_texts_are_listed(server: LocalServer) -> None:
    content = server.embed(["short", "word " * 500, "also short"])
    assert content["truncated"] == [1]
    assert content["tokens"][1] <= 401


def test_similarity_equals_the_vectors_of_embed(server: LocalServer) -> None:
    queries, documents = ["where is the cat?", "stocks"], ["the cat sits here", "shares fell", "a third"]
    content = server.client.post(
        "/similarity", json={"queries": queries, "documents": documents, "query_instruction": "Find:"}
    ).json()
    left = np.array(server.embed(queries, instruction="Find:")["embeddings"])
    right = np.array(server.embed(documents)["embeddings"])
    np.testing.assert_allclose(content["scores"], left @ right.T, atol=1e-5)
    assert len(content["tokens"]["queries"]) == 2
    assert len(content["tokens"]["documents"]) == 3
    assert content["truncated"] == {"queries": [], "documents": []}


def test_similarity_dot_uses_the_raw_vectors(server: LocalServer, encoder: Encoder) -> None:
    content = server.client.post("/similarity", json={"queries": "a", "documents": ["b"], "metric": "dot"}).json()
    left, right = encoder.encode([Input("a"), Input("b")])
    assert content["scores"][0][0] == pytest.approx(float(left @ right), rel=1e-5)


def test_similarity_without_documents_compares_the_queries(server: LocalServer) -> None:
    content = server.client.post("/similarity", json={"queries": ["a", "b", "c"]}).json()
    scores = np.array(content["scores"])
    assert scores.shape == (3, 3)
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-6)
    assert scores.max() <= 1
    assert list(content["tokens"]) == ["queries"]


def test_top_k_returns_the_best_matches_in_order(server: LocalServer) -> None:
    body = {"queries": ["hello world", "other"], "documents": ["abc", "hello world", "xyz", "hello there"]}
    full = np.array(server.client.post("/similarity", json=body).json()["scores"])
    content = server.client.post("/similarity", json=body | {"top_k": 2}).json()
    assert "scores" not in content
    for row, matches in zip(full, content["results"], strict=True):
        assert [match["index"] for match in matches] == np.argsort(-row, kind="stable")[:2].tolist()
        assert [match["score"] for match in matches] == sorted(row, reverse=True)[:2]
    everything = server.client.post("/similarity", json=body | {"top_k": 99}).json()["results"]
    assert [len(row) for row in everything] == [4, 4]


def test_every_response_has_a_request_id_and_timings(server: LocalServer) -> None:
    response = server.client.post("/embed", json={"inputs": "a"}, headers={"X-Request-Id": "mine-1"})
    assert response.headers["X-Request-Id"] == "mine-1"
    stages = dict(part.split(";dur=") for part in response.headers["Server-Timing"].split(", "))
    assert list(stages) == ["tokenize", "queue", "forward", "finish"]
    assert all(float(milliseconds) >= 0 for milliseconds in stages.values())
    forged = server.client.post("/embed", json={"inputs": "a"}, headers={"X-Request-Id": "a b{}"})
    assert len(forged.headers["X-Request-Id"]) == 32


def test_info_describes_the_model(server: LocalServer, encoder: Encoder) -> None:
    info = server.client.get("/info").json()
    assert info["dimensions"] == encoder.dimensions
    assert info["pooling"] == "mean"
    assert info["limits"]["max_inputs"] == 2048
    assert "/" not in json.dumps([source["name"] for source in info["sources"]])


def body(content: Any) -> bytes:
    return json.dumps(content).encode()


BAD_REQUESTS: dict[str, tuple[bytes, int, str | None]] = {
    "not json": (b"{", 400, "body"),
    "empty body": (b"", 422, "body"),
    "not utf-8": (b'{"inputs": "\xff\xfe"}', 400, "body"),
    "deeply nested": (b'{"inputs": ' + b"[" * 2000, 400, "body"),
    "a list": (body(["a"]), 422, "body"),
    "a text": (body("a"), 422, "body"),
    "null": (b"null", 422, "body"),
    "no inputs": (body({}), 422, "inputs"),
    "inputs null": (body({"inputs": None}), 422, "inputs"),
    "inputs number": (body({"inputs": 5}), 422, "inputs"),
    "inputs empty list": (body({"inputs": []}), 422, "inputs"),
    "inputs empty text": (body({"inputs": ""}), 422, "inputs"),
    "input blank": (body({"inputs": ["a", " \n\t"]}), 422, "inputs[1].text"),
    "input number": (body({"inputs": ["a", 1]}), 422, "inputs[1]"),
    "input nested": (body({"inputs": [["i", ["x"]]]}), 422, "inputs[0].text"),
    "pair of one": (body({"inputs": [["i"]]}), 422, "inputs[0].text"),
    "pair of three": (body({"inputs": [["i", "t", "x"]]}), 422, "inputs[0]"),
    "pair blank": (body({"inputs": [["i", ""]]}), 422, "inputs[0].text"),
    "pair of numbers": (body({"inputs": [[1, "t"]]}), 422, "inputs[0].instruction"),
    "object without text": (body({"inputs": [{"instruction": "i"}]}), 422, "inputs[0].text"),
    "object with more": (body({"inputs": [{"text": "t", "lang": "de"}]}), 422, "inputs[0].lang"),
    "unknown field": (body({"inputs": "a", "colour": "red"}), 422, "colour"),
    "lone surrogate": (b'{"inputs": ["a", "\\ud800"]}', 422, "inputs[1].text"),
    "surrogate in the instruction": (b'{"inputs": "a", "instruction": "\\udfff"}', 422, "instruction"),
    "NUL": (body({"inputs": ["a\0b"]}), 422, "inputs[0].text"),
    "dimensions 0": (body({"inputs": "a", "dimensions": 0}), 422, "dimensions"),
    "dimensions beyond": (body({"inputs": "a", "dimensions": 4096}), 422, "dimensions"),
    "dimensions text": (body({"inputs": "a", "dimensions": "8"}), 422, "dimensions"),
    "dimensions true": (body({"inputs": "a", "dimensions": True}), 422, "dimensions"),
    "normalize text": (body({"inputs": "a", "normalize": "yes"}), 422, "normalize"),
    "format unknown": (body({"inputs": "a", "encoding_format": "int8"}), 422, "encoding_format"),
    "long text": (body({"inputs": ["a", "x" * 1_000_000]}), 422, "inputs[1].text"),
    "long instruction": (body({"inputs": "a", "instruction": "x" * 200_000}), 422, "instruction"),
    "too many inputs": (body({"inputs": ["a"] * 3000}), 413, "inputs"),
    "too long, truncate false": (body({"inputs": ["a", "w " * 900], "truncate": False}), 422, "inputs[1].text"),
    "no room for the text": (body({"inputs": ["a"], "instruction": "x" * 600}), 422, "instruction"),
    "no room for one text": (body({"inputs": ["a", ["x" * 600, "b"]]}), 422, "inputs[1].instruction"),
    "no room for the only text": (body({"inputs": {"text": "a", "instruction": "x" * 600}}), 422, "inputs.instruction"),
    "body too large": (b'{"inputs": "' + b"x" * 17_000_000, 413, "body"),
}


def test_bad_requests_are_rejected_while_good_ones_succeed(server: LocalServer) -> None:
    expected = server.embed("a good text")["embeddings"][0]

    def send(content: bytes) -> httpx.Response:
        return httpx.post(f"{server.url}/embed", content=content, headers=JSON, timeout=60)

    good = body({"inputs": "a good text"})
    with ThreadPoolExecutor(16) as pool:
        concurrent = [pool.submit(send, good) for _ in range(20)]
        responses = {name: pool.submit(send, content) for name, (content, _, _) in BAD_REQUESTS.items()}
        concurrent += [pool.submit(send, good) for _ in range(20)]
    wrong = {}
    for name, (_, status, param) in BAD_REQUESTS.items():
        response = responses[name].result()
        error = response.json()["error"]
        if (response.status_code, error["param"], error["type"]) != (status, param, BY_STATUS[status].type):
            wrong[name] = (response.status_code, error)
        assert error["message"]
    assert not wrong
    for future in concurrent:
        assert cosine(future.result().json()["embeddings"][0], expected) > 0.999999


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "param"),
    [
        ("GET", "/embed", {}, 405, "path"),
        ("DELETE", "/similarity", {}, 405, "path"),
        ("GET", "/nothing", {}, 404, "path"),
        ("GET", "/health//", {}, 404, "path"),
        ("POST", "/nothing", JSON, 404, "path"),
        ("POST", "/embed", {"Content-Type": "text/plain"}, 415, "content-type"),
        ("POST", "/embed", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "content-type"),
    ],
)
def test_wrong_path_method_and_media_type(
    server: LocalServer, method: str, path: str, headers: dict[str, str], status: int, param: str
) -> None:
    response = server.client.request(method, path, headers=headers, content=b'{"inputs": "a"}')
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


def test_similarity_names_its_own_fields(server: LocalServer) -> None:
    for content, param in (
        ({"documents": ["a"]}, "queries"),
        ({"queries": ["a", ""]}, "queries[1].text"),
        ({"queries": "a", "documents": [["i", " "]]}, "documents[0].text"),
        ({"queries": "a", "document_instruction": "i"}, "document_instruction"),
        ({"queries": "a", "top_k": 0}, "top_k"),
        ({"queries": "a", "metric": "euclid"}, "metric"),
        ({"queries": ["a"] * 1500, "documents": ["b"] * 1500}, "queries"),
    ):
        response = server.client.post("/similarity", json=content)
        assert response.status_code in (413, 422)
        assert response.json()["error"]["param"] == param


def test_a_huge_body_is_rejected_before_it_is_read(server: LocalServer) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 500_000_000:
            sent += 1_000_000
            yield b" " * 1_000_000

    try:
        response = httpx.post(f"{server.url}/embed", content=endless(), headers=JSON, timeout=60)
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # the server responded and closed the connection before the client sent everything
    assert sent < 200_000_000
    with socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1]))) as announced:
        announced.sendall(
            b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert announced.recv(100).startswith(b"HTTP/1.1 413")


def test_json_preserves_float32(server: LocalServer, encoder: Encoder) -> None:
    vector = np.array(server.embed("hello", normalize=False)["embeddings"][0])
    np.testing.assert_array_equal(vector.astype(np.float32), encoder.encode([Input("hello")])[0])
    assert all(math.isfinite(number) for number in vector)


def test_openapi_lists_the_errors_of_the_table(server: LocalServer) -> None:
    schema = server.client.get("/openapi.json").json()
    for path in ("/embed", "/similarity"):
        operation = schema["paths"][path]["post"]
        errors = {int(status) for status in operation["responses"] if status != "200"}
        assert errors == {400, 401, 404, 413, 415, 422, 429, 500, 503, 504}
        for status in errors:
            content = operation["responses"][str(status)]
            assert content["description"] == BY_STATUS[status].meaning
            assert content["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


def test_the_api_docs_load_nothing_from_other_hosts(server: LocalServer) -> None:
    page = server.client.get("/docs")
    assert "'self'" in page.headers["Content-Security-Policy"]
    assert "http" not in page.text
    for name in re.findall(r'"(/docs/[^"]+)"', page.text):
        asset = server.client.get(name)
        assert asset.status_code == 200
        assert server.client.get(name, headers={"If-None-Match": asset.headers["ETag"]}).status_code == 304
    for name in ("/docs/../main.py", "/docs/%2e%2e/main.py", "/docs/nothing.js"):
        assert server.client.get(name).status_code == 404


def test_tokenize_shows_the_rows_that_embed_runs(server: LocalServer) -> None:
    body = {"inputs": ["hello", ["Other:", "wide world"], "word " * 900], "instruction": "Find:"}
    shown = server.client.post("/tokenize", json=body).json()
    embedded = server.client.post("/embed", json=body).json()
    assert [len(tokens) for tokens in shown["tokens"]] == embedded["tokens"]
    assert shown["truncated"] == embedded["truncated"] == [2]
    for tokens, (instruction, text) in zip(
        shown["tokens"], [("Find:", "hello"), ("Other:", "wide world")], strict=False
    ):
        for role, expected in (("instruction", instruction), ("text", text)):
            joined = "".join(token["text"] for token in tokens if token["role"] == role)
            assert joined.strip() == expected
        assert [token["pooled"] for token in tokens] == [token["role"] == "text" for token in tokens]
