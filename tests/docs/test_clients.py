"""Third-party clients, as shown in docs/clients.md: each gets the vectors of the native API."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.docs.blocks import BLOCKS, Block
from tests.docs.running import run_python
from tests.serving import ServerProcess

CLIENTS, STORES = ([block for block in BLOCKS if block.options.get("with") == name] for name in ("texts", "corpus"))
assert len(CLIENTS) >= 12, "docs/clients.md has fewer clients than before"
assert len(STORES) == 2
TEXTS = ["the cat sits on the mat", "stocks fell sharply"]


def result(name: str, block: Block, server: ServerProcess, folder: Path) -> Any:
    """The value of a variable after the code has run."""
    printing = replace(block, body=f"{block.body}\nimport json\nprint(json.dumps({name}))")
    done = run_python(printing, f"localhost:{server.port}", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("block", CLIENTS, ids=str)
def test_a_client_gets_the_vectors_of_the_native_api(block: Block, demo: ServerProcess, tmp_path: Path) -> None:
    body = {"inputs": TEXTS} | ({"instruction": "Retrieve similar text:"} if "instruction" in block.body else {})
    expected = np.array(demo.client.post("/embed", json=body).json()["embeddings"])
    if "sentence_similarity" in block.body:
        np.testing.assert_allclose(result("scores", block, demo, tmp_path), expected[:1] @ expected.T, atol=2e-2)
        return
    got = np.array(result("vectors", block, demo, tmp_path))
    assert got.shape == expected.shape
    got /= np.linalg.norm(got, axis=1, keepdims=True)  # Haystack does not normalise
    assert (got * expected).sum(1).min() > 0.9999


def test_coheres_client_gets_every_type_and_reads_errors(demo: ServerProcess, tmp_path: Path) -> None:
    code = """
from cohere import BadRequestError, ClientV2
client = ClientV2(base_url="http://localhost:8080", api_key="none")
kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
response = client.embed(
    model="any", texts=["a cat"], input_type="search_query", embedding_types=kinds, output_dimension=64, truncate="NONE"
)
found = {kind: response.embeddings.dict()[kind][0] for kind in kinds}
found["meta"] = [response.response_type, response.texts, response.meta.billed_units.input_tokens]
try:
    client.embed(model="any", texts=[" "], input_type="search_query")
except BadRequestError as error:
    found["error"] = error.body["message"]
"""
    found = result("found", Block("docs/clients.md", 0, "python", code), demo, tmp_path)
    floats = np.array(found["float"])
    assert floats.shape == (64,)
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(found["base64"]), "<f4"), floats, atol=1e-6)
    np.testing.assert_allclose(np.array(found["int8"]) / 127, floats / np.abs(floats).max(), atol=0.006)
    assert found["uint8"] == [number + 128 for number in found["int8"]]
    assert found["ubinary"] == np.packbits(floats > 0).tolist() == [number + 128 for number in found["binary"]]
    assert found["meta"] == [
        "embeddings_by_type",
        ["a cat"],
        demo.client.post("/embed", json={"inputs": "a cat"}).json()["tokens"][0],
    ]
    assert found["error"] == "Invalid value for 'texts[0]': must not be empty or blank."


@pytest.mark.parametrize("block", STORES, ids=str)
def test_a_vector_store_finds_the_matching_documents(block: Block, demo: ServerProcess, tmp_path: Path) -> None:
    assert result("places", block, demo, tmp_path) == [[0], [1], [2]]
