"""Records the API's observable behaviour: its OpenAPI document, the responses of each route, and the metrics.

`python -m tests.app.recording OPEN_URL KEYED_URL > tests/app/recording.json` records two running services. The second
must require the key `secret`.
"""

import json
import sys
from itertools import product
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

KEY = "secret"
PATHS = [
    "/", "/docs", "/docs/start.js", "/openapi.json", "/playground/main.js", "/playground/none.js",
    "/embed", "/similarity", "/tokenize", "/prompts", "/info", "/health", "/ready", "/metrics",
    "/v1/embeddings", "/v1/models", "/v1/models/other", "/v1/other", "/v2/embed", "/v2/other",
    "/tei", "/tei/", "/tei/embed", "/tei/embed_all", "/tei/similarity", "/tei/tokenize", "/tei/decode", "/tei/info",
    "/tei/health", "/tei/ping", "/tei/metrics", "/tei/embeddings", "/tei/v1/embeddings", "/tei/other",
    "/other", "/embed/", "/v1", "/teil",
]  # fmt: skip
JSON = {"content-type": "application/json"}
POSTS: list[tuple[str, dict[str, str], str]] = [
    ("not json", JSON, "{"),
    ("not utf-8 json", JSON | {"content-type": "application/json; charset=utf-8"}, '{"a": "\\ud800"}'),
    ("text", {"content-type": "text/plain"}, "hello"),
    ("compressed", JSON | {"content-encoding": "gzip"}, "{}"),
    ("empty object", JSON, "{}"),
    ("no body", {}, ""),
    ("list", JSON, "[]"),
    ("unknown field", JSON, '{"inputs": "a", "input": "a", "queries": "a", "ids": [1], "other": 1}'),
    ("inputs", JSON, '{"inputs": "a cat"}'),
    ("input", JSON, '{"input": "a cat"}'),
    ("base64", JSON, '{"input": "a cat", "encoding_format": "base64"}'),
    ("blank", JSON, '{"inputs": [" "]}'),
    ("blank input", JSON, '{"input": [" "]}'),
    ("none", JSON, '{"inputs": []}'),
    ("none input", JSON, '{"input": []}'),
    ("number", JSON, '{"inputs": [3], "input": [3.5]}'),
    ("ids", JSON, '{"input": [[5, 6], [7]]}'),
    ("tei ids", JSON, '{"ids": [[5, 6], [7]]}'),
    ("no such id", JSON, '{"ids": [99999999]}'),
    ("dimensions", JSON, '{"inputs": "a", "dimensions": 999999}'),
    ("dimensions of input", JSON, '{"input": "a", "dimensions": 999999}'),
    ("no prompt", JSON, '{"inputs": "a", "prompt_name": "none"}'),
    ("too long", JSON, json.dumps({"inputs": "word " * 3000, "truncate": False})),
    ("too long input", JSON, json.dumps({"input": "word " * 3000, "truncate": False})),
    ("queries", JSON, '{"queries": "a", "documents": ["b", "c"]}'),
    ("top_k", JSON, '{"queries": "a", "documents": ["b", "c"], "top_k": 1}'),
    ("types", JSON, '{"texts": ["a cat"], "embedding_types": ["int8", "base64"]}'),
    ("no type", JSON, '{"texts": ["a cat"], "embedding_types": []}'),
    ("sentences", JSON, '{"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}'),
]  # fmt: skip
_TEXTS = ("description", "summary", "title", "examples", "version")
_HEADERS = (
    "allow",
    "www-authenticate",
    "connection",
    "retry-after",
    "content-security-policy",
    "x-content-type-options",
)


def record(open_url: str, keyed_url: str) -> dict[str, Any]:
    """Records both OpenAPI documents without their texts, the responses, and the series of the metrics."""
    with httpx.Client(base_url=open_url, timeout=60) as client, httpx.Client(base_url=keyed_url, timeout=60) as keyed:
        bearer = {"authorization": f"Bearer {KEY}"}
        recorded = {
            "openapi": _without_texts(client.get("/openapi.json").json()),
            "openapi with keys": _without_texts(keyed.get("/openapi.json", headers=bearer).json()),
            "responses": {
                f"{method} {path}": _describe(client.request(method, path))
                for path, method in product(PATHS, ("GET", "HEAD", "DELETE", "OPTIONS"))
            },
            "posts": {
                f"{path}: {name}": _describe(client.post(path, headers=headers, content=body))
                for path, (name, headers, body) in product(PATHS, POSTS)
            },
            "without a key": {path: _describe(keyed.get(path)) for path in PATHS},
            "posts without a key": {path: _describe(keyed.post(path, json={})) for path in PATHS},
            "with a key": {path: _describe(keyed.get(path, headers=bearer)) for path in PATHS},
        }
        return recorded | {"metrics": _metrics(client.get("/metrics").text)}


def render(recorded: dict[str, Any]) -> str:
    """Formats as JSON with one line per response, so that differences are readable."""
    parts = [
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f"{json.dumps(key)}: {json.dumps(item)}" for key, item in part.items())
        + "\n}"
        if isinstance(part, dict)
        else f"{json.dumps(name)}: " + json.dumps(part, indent=0)
        for name, part in recorded.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}"


def _without_texts(value: Any) -> Any:
    """Removes the texts that only people read."""
    if isinstance(value, dict):
        return {
            name: _without_texts(item)
            for name, item in value.items()
            if name not in _TEXTS or isinstance(item, dict | list)
        }
    return [_without_texts(item) for item in value] if isinstance(value, list) else value


def _describe(response: httpx.Response) -> list[Any]:
    """Status, media type, significant headers and shape of a response."""
    headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
    if "allow" in headers:
        headers["allow"] = ", ".join(sorted(headers["allow"].split(", ")))  # the order varies
    kind = response.headers.get("content-type", "")
    shape = _shape(response.json()) if kind == "application/json" and response.content else len(response.content) > 0
    return [response.status_code, kind, headers, shape]


def _shape(value: Any) -> Any:
    """The names and types in a body; for an error, also the values, except the message."""
    if isinstance(value, dict):
        return {
            name: item if name in ("type", "param", "code", "error_type") else _shape(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_shape(item) for item in value[:1]]
    return type(value).__name__


def _metrics(exposition: str) -> list[str]:
    """Our series, with the values of the labels that do not depend on the machine."""
    series = set()
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples if family.name.startswith("l2v_") else ():
            labels = {
                name: value if name in ("route", "status", "stage", "reason", "outcome", "kind") else ""
                for name, value in sample.labels.items()
            }
            if labels.get("route") != "/ready":  # the number of 503s during the start varies
                series.add(json.dumps([sample.name, labels], sort_keys=True))
    return sorted(series)


if __name__ == "__main__":
    print(render(record(*sys.argv[1:])))
