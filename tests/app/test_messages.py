"""Error messages. SDKs show nothing else, so they name the field, the type of its value, and what to do."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from l2v.app.engine.errors import InternalError, UnavailableError
from l2v.app.http.messages import full_message
from l2v.app.main import create_app
from l2v.app.settings import Settings
from l2v.models import Encoder
from tests.serving import LocalServer, wait_for

JSON = {"Content-Type": "application/json"}


def message(response: httpx.Response) -> str:
    """The message of an error on any surface."""
    body = response.json()
    error = body.get("error", body)
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        ("/v1/embeddings", {"input": "a", "colour": 1}, "Unknown parameter: 'colour'."),
        ("/v1/embeddings", {}, "Missing required parameter: 'input'."),
        ("/v1/embeddings", [], "Invalid type for 'body': expected an object, but got an array instead."),
        (
            "/v1/embeddings",
            {"input": 5},
            "Invalid type for 'input': expected a text or an array of token ids, but got an integer instead.",
        ),
        (
            "/v1/embeddings",
            {"input": None},
            "Invalid type for 'input': expected a text or an array of token ids, but got null instead.",
        ),
        (
            "/v1/embeddings",
            {"input": [5, 2.5]},
            "Invalid type for 'input[1]': expected an integer, but got a number instead.",
        ),
        (
            "/v1/embeddings",
            {"input": "a", "dimensions": "8"},
            "Invalid type for 'dimensions': expected an integer, but got a string instead.",
        ),
        (
            "/v1/embeddings",
            {"input": "a", "encoding_format": "int8"},
            "Invalid value for 'encoding_format': expected 'float' or 'base64', but got another string instead.",
        ),
        ("/v1/embeddings", {"input": "a", "dimensions": 0}, "Invalid value for 'dimensions': must be at least 1."),
        (
            "/v1/embeddings",
            {"input": "a", "dimensions": 999},
            "Invalid value for 'dimensions': must be at most 32, the number of dimensions of the model.",
        ),
        ("/v1/embeddings", {"input": []}, "Invalid value for 'input': must not be empty."),
        (
            "/v1/embeddings",
            {"input": "a", "messages": []},
            "Unsupported parameter: 'messages'. Send the texts as 'input'.",
        ),
        ("/v1/embeddings", {"texts": ["a"]}, "Unsupported parameter: 'texts'. Send the texts as 'input'."),
        (
            "/v1/embeddings",
            {"input": "a", "modality": "image"},
            "Unsupported value: 'modality'. Only texts can be embedded.",
        ),
        ("/embed", {"inputs": [{"text": "a", "lang": "de"}]}, "Unknown parameter: 'inputs[0].lang'."),
        ("/embed", {"inputs": [["i"]]}, "Missing required parameter: 'inputs[0].text'."),
        ("/embed", {"inputs": [["i", "t", "x"]]}, "Invalid value for 'inputs[0]': must have at most 2 items."),
        (
            "/embed",
            {"inputs": "a", "normalize": []},
            "Invalid type for 'normalize': expected a boolean, but got an array instead.",
        ),
        (
            "/embed",
            {"inputs": ["a", {"text": {}}]},
            "Invalid type for 'inputs[1].text': expected a string, but got an object instead.",
        ),
        ("/embed", {"inputs": "a", "prompt_name": ""}, "Invalid value for 'prompt_name': must not be empty."),
        (
            "/embed",
            {"inputs": "a", "prompt_name": "x" * 101},
            "Invalid value for 'prompt_name': must have at most 100 characters.",
        ),
        (
            "/similarity",
            {"queries": ["a", "b\0"]},
            "Invalid value for 'queries[1].text': must not contain a NUL character.",
        ),
        (
            "/embed",
            {"inputs": ["a\ud800"]},
            "Invalid value for 'inputs[0].text': must be Unicode text, without lone surrogates.",
        ),
        (
            "/tei/similarity",
            {"inputs": 5},
            "Invalid type for 'inputs': expected an object, but got an integer instead.",
        ),
        ("/tei/embed", {"inputs": ""}, "Invalid value for 'inputs': must not be empty or blank."),
        (
            "/tei/embed",
            {"inputs": "a", "truncate": 1},
            "Invalid type for 'truncate': expected a boolean, but got an integer instead.",
        ),
        (
            "/tei/v1/embeddings",
            {"input": "a", "prompt_name": "none"},
            "Invalid value for 'prompt_name': there is no such prompt; known prompts: none.",
        ),
        ("/tei", {"inputs": {"source_sentence": "a"}}, "Missing required parameter: 'inputs.sentences'."),
    ],
)
def test_messages_name_the_field_and_the_kind_of_its_value(
    path: str, content: Any, expected: str, server: LocalServer
) -> None:
    body = json.dumps(content)  # httpx can't send lone surrogates
    assert message(server.client.post(path, content=body, headers=JSON)) == expected


def test_failures_of_the_model_name_the_field_too() -> None:
    assert (
        full_message(InternalError("the model failed", "inputs[3].text"))
        == "Failed on 'inputs[3].text': the model failed."
    )
    assert full_message(InternalError("request 1")) == "request 1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"input": "a",\n "user": }', "the body is not valid JSON: expecting value at line 2, column 10"),
        (b'{"input": "a"', "the body is not valid JSON: expecting ',' delimiter at line 1, column 14"),
        (b'{"input": ' + b"[" * 2000, "the body is not valid JSON: it is nested too deeply"),
        (b'{"dimensions": ' + b"1" * 5000 + b"}", "the body is not valid JSON: a number has too many digits"),
        (
            '{"input": "café"}'.encode("latin-1"),
            "the body is not UTF-8: byte 15 is 0xE9, as in Latin-1 or Windows-1252",
        ),
        ('{"input": "a"}'.encode("utf-16"), "the body is UTF-16: send UTF-8"),
        ('{"input": "a"}'.encode("utf-16-be"), "the body is UTF-16: send UTF-8"),
        ('{"input": "a"}'.encode("utf-32"), "the body is UTF-32: send UTF-8"),
        ('{"input": "a"}'.encode("utf-8-sig"), "the body starts with a byte order mark: send UTF-8 without one"),
    ],
)
def test_malformed_bodies_are_located(body: bytes, expected: str, server: LocalServer) -> None:
    for path in ("/v1/embeddings", "/embed", "/tei"):
        response = server.client.post(path, content=body, headers=JSON)
        assert (response.status_code, message(response)) == (400, expected)


@pytest.mark.parametrize(
    ("method", "path", "meant", "ending"),
    [
        ("POST", "/embeddings", "/v1/embeddings", "end in /v1"),
        ("POST", "/v1/v1/embeddings", "/v1/embeddings", "end in /v1"),
        ("POST", "/v1/embeddings/embeddings", "/v1/embeddings", "end in /v1"),
        ("POST", "/openai/deployments/ada/embeddings?api-version=1", "/v1/embeddings", "end in /v1"),
        ("POST", "/openai/v1/embeddings", "/v1/embeddings", "end in /v1"),
        ("POST", "/api/embed", "/v1/embeddings", "end in /v1"),
        ("POST", "/api/embeddings", "/v1/embeddings", "end in /v1"),
        ("POST", "/v1", "/v1/embeddings", "end in /v1"),
        ("POST", "//v1/embeddings", "/v1/embeddings", "end in /v1"),
        ("POST", "/v1//embeddings", "/v1/embeddings", "end in /v1"),
        ("GET", "/models", "/v1/models", "end in /v1"),
        ("GET", "/models/demo", "/v1/models/demo", "end in /v1"),
        ("GET", "/api/tags", "/v1/models", "end in /v1"),
        ("POST", "//embed", "/embed", "have no path"),
        ("POST", "/embed//", "/embed", "have no path"),
        ("POST", "/v1/embed", "/v2/embed", "have no path"),
        ("GET", "/v1/info", "/info", "have no path"),
        ("POST", "/embed_all", "/tei/embed_all", "end in /tei"),
        ("POST", "/tei/tei/embed", "/tei/embed", "end in /tei"),
        ("POST", "/tei/embed/embed", "/tei/embed", "end in /tei"),
        ("POST", "/tei/v1/v1/embeddings", "/tei/v1/embeddings", "end in /tei"),
        ("POST", "/", "/tei", "end in /tei"),
    ],
)
def test_a_request_to_a_wrong_base_url_is_told_the_right_path(
    method: str, path: str, meant: str, ending: str, server: LocalServer
) -> None:
    response = httpx.request(method, server.url + path, json={"input": "a"} if method == "POST" else None)
    assert response.status_code == (405 if path == "/" else 404)
    assert message(response).endswith(f" Did you mean {meant}? The client's base URL should {ending}.")


@pytest.mark.parametrize("path", ["/nothing", "/v1/other", "/rerank", "/docs/none.js", "/" + "x/" * 5000])
def test_other_paths_are_not_found(path: str, server: LocalServer) -> None:
    response = httpx.get(server.url + path)
    assert (response.status_code, message(response)) == (404, "There is no such path.")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/embed", {"inputs": "a"}),
        ("/similarity", {"queries": "a"}),
        ("/v1/embeddings", {"input": "a"}),
        ("/tei", {"inputs": "a"}),
        ("/tei/embed", {"inputs": "a"}),
        ("/tei/v1/embeddings", {"input": "a"}),
    ],
)
def test_a_trailing_slash_is_ignored(path: str, content: dict[str, Any], server: LocalServer) -> None:
    response = server.client.post(f"{path}/", json=content)
    assert (response.status_code, response.json()) == (200, server.client.post(path, json=content).json())
    for page in ("/health", "/info", "/v1/models", "/v1/models/demo", "/docs", "/tei/info"):
        assert server.client.get(f"{page}/").content == server.client.get(page).content


def test_a_trailing_slash_does_not_bypass_the_key(encoder: Encoder) -> None:
    """The key is checked, and the request counted, for the path without the slash."""
    with LocalServer(encoder, api_keys="sesame") as server:
        for path in ("/info", "/embed", "/v1/models", "/v1/models/demo", "/tei", "/nothing"):
            assert server.client.get(f"{path}/").status_code == 401
        assert server.client.get("/health/").status_code == 200
        bearer = {"Authorization": "Bearer sesame"}
        server.client.get("/info/", headers=bearer)
        counted = 'l2v_requests_total{model="",route="/info",status="200"}'
        wait_for(lambda: counted in server.client.get("/metrics").text, what="the count")


def test_head_works_wherever_get_does(server: LocalServer) -> None:
    paths = server.client.get("/openapi.json").json()["paths"]
    readable = [path.replace("{name}", "demo") for path, methods in paths.items() if "get" in methods]
    for path in [
        *readable,
        "/",
        "/docs",
        "/openapi.json",
        "/docs/start.js",
        "/playground/main.js",
        "/tei",
        "/tei/ping",
    ]:
        get, head = server.client.get(path), server.client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        refused = server.client.delete(path)
        assert refused.status_code == 405
        assert {"GET", "HEAD"} <= set(refused.headers["allow"].split(", "))
    assert server.client.delete("/tei").headers["allow"] == "GET, HEAD, POST"


def test_a_loading_service_returns_503_with_retry_after() -> None:
    async def answers() -> list[httpx.Response]:
        app = create_app(Settings())  # loads no model, since it is never started
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://l2v") as client:
            return [
                await client.post("/embed", json={"inputs": "a"}),
                await client.post("/v1/embeddings", json={"input": "a"}),
                await client.post("/tei", json={"inputs": "a"}),
                *[await client.get(path) for path in ("/info", "/ready", "/tei/health", "/tei/info")],
            ]

    for response in asyncio.run(answers()):
        assert (response.status_code, response.headers.get("retry-after")) == (503, "5")
    app = create_app(Settings())
    surface = app.state.targets.find("/embed").surface
    draining = surface.to_response(UnavailableError("the service is shutting down", permanent=True))
    assert "retry-after" not in draining.headers
    assert json.loads(bytes(draining.body))["error"]["message"] == "the service is shutting down"
