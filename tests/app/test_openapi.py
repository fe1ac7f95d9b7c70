"""The OpenAPI document: what client generators and readers rely on, and a client generated from it."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from l2v.app.http.schemas import cohere, native, openai, operations, tei
from l2v.app.main import create_app
from l2v.app.settings import Settings
from tests.docs.running import CLIENTS_PYTHON
from tests.serving import LocalServer

DOCUMENT: dict[str, Any] = create_app(Settings()).openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS: list[dict[str, Any]] = [each for methods in DOCUMENT["paths"].values() for each in methods.values()]
USE = """
import json, sys
from l2v_client import Client
from l2v_client.api.cohere import cohere_embed
from l2v_client.api.embeddings import embed, similarity
from l2v_client.api.open_ai import openai_embeddings
from l2v_client.api.operations import info, ready
from l2v_client.models import CohereRequest, EmbedRequest, EmbeddingsRequest, SimilarityRequest

client = Client(base_url=sys.argv[1])
blank = embed.sync(client=client, body=EmbedRequest(inputs=[" "]))
print(json.dumps({
    "vectors": embed.sync(client=client, body=EmbedRequest(inputs=["hello"])).embeddings,
    "openai": openai_embeddings.sync(client=client, body=EmbeddingsRequest(input_="hello")).data[0].embedding,
    "cohere": cohere_embed.sync(client=client, body=CohereRequest(texts=["hello"])).embeddings.float_,
    "scores": similarity.sync(client=client, body=SimilarityRequest(queries="a", documents=["b", "c"])).scores,
    "pooling": info.sync(client=client).pooling,
    "state": ready.sync(client=client).status.value,
    "param": blank.error.param,
}))
"""


def test_each_operation_has_a_short_id_of_its_own() -> None:
    ids = Counter(operation["operationId"] for operation in OPERATIONS)
    assert max(ids.values()) == 1
    assert {"embed", "similarity", "info", "openai_embeddings", "cohere_embed", "tei_embed"} <= ids.keys()
    assert max(map(len, ids)) <= 20


def test_each_property_is_described() -> None:
    fields = {
        (name, field): schema for name, part in SCHEMAS.items() for field, schema in part.get("properties", {}).items()
    }
    assert [key for key, schema in fields.items() if not schema.get("description")] == []


def test_each_json_response_has_a_type_and_an_example() -> None:
    for operation in OPERATIONS:
        content = operation["responses"]["200"]["content"].get("application/json")
        if content is None:  # text
            continue
        assert content["schema"], operation["operationId"]
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        assert "example" in content or SCHEMAS[name].get("examples"), name


@pytest.mark.parametrize("module", [native, openai, cohere, tei, operations])
def test_examples_are_valid(module: Any) -> None:
    for kind in vars(module).values():
        for example in (getattr(kind, "model_config", None) or {}).get("json_schema_extra", {}).get("examples", ()):
            TypeAdapter(kind).validate_python(example)


def test_info_has_the_declared_fields(server: LocalServer) -> None:
    found = server.client.get("/info").json()
    made = operations.InfoResponse.model_validate(found)
    assert found.keys() == made.model_dump(exclude_none=True).keys()
    assert found["limits"].keys() == made.limits.model_dump().keys()
    assert found["models"][0].keys() == made.models[0].model_dump(exclude_none=True).keys()
    assert found["sources"][0].keys() == made.sources[0].model_dump().keys()


def test_a_generated_client_calls_the_service(server: LocalServer, tmp_path: Path) -> None:
    if not CLIENTS_PYTHON.exists():
        reason = "the clients are not installed; `make test` installs them"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    document, config = tmp_path / "openapi.json", tmp_path / "config.yml"
    document.write_text(json.dumps(server.client.get("/openapi.json").json()))
    config.write_text("post_hooks: []")
    folder = tmp_path / "l2v_client"
    flags = ["--meta", "none", "--fail-on-warning", "--config", config, "--path", document, "--output-path", folder]
    subprocess.run([CLIENTS_PYTHON, "-m", "openapi_python_client", "generate", *flags], check=True, timeout=120)
    done = subprocess.run(
        [CLIENTS_PYTHON, "-c", USE, server.url], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    found = json.loads(done.stdout)
    assert found["vectors"] == server.embed(["hello"])["embeddings"] == found["cohere"] == [found["openai"]]
    assert [len(row) for row in found["scores"]] == [2]
    assert (found["pooling"], found["state"], found["param"]) == ("mean", "ready", "inputs[0].text")
