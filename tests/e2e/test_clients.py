"""Clients of others, unmodified, against a running server: each gets the vectors that the native API gives."""

import ast
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.serving import ServerProcess

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
SCRIPT = ROOT / "tests" / "clients" / "run.py"
SOURCE = ast.parse(SCRIPT.read_text())
NAMES = [node.name for node in SOURCE.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
STORES = ["qdrant", "lancedb"]


def run(name: str, url: str) -> list[list[float]]:
    """What a client prints."""
    if not PYTHON.exists():
        reason = "the clients are not installed (`make test` does that)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    # No proxy and no telemetry: the clients talk to the server and to nobody else.
    quiet = {"HF_HUB_OFFLINE": "0", "HAYSTACK_TELEMETRY_ENABLED": "False", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(
        [PYTHON, SCRIPT, name, url], check=False, capture_output=True, text=True, env=os.environ | quiet, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("name", [name for name in NAMES if name not in STORES])
def test_a_client_gets_the_vectors_of_the_native_api(name: str, demo: ServerProcess) -> None:
    texts = ["the cat sits on the mat", "stocks fell sharply"]
    body = {"inputs": texts} | ({"instruction": "Retrieve similar text:"} if "instruction" in name else {})
    expected = np.array(demo.client.post("/embed", json=body).json()["embeddings"])
    got = np.array(run(name, demo.url))
    if name == "huggingface_hub_similarity":
        expected = expected[:1] @ expected.T
        np.testing.assert_allclose(got, expected, atol=2e-2)
    else:
        assert got.shape == expected.shape
        got /= np.linalg.norm(got, axis=1, keepdims=True)  # Haystack asks for vectors as they are
        assert (got * expected).sum(1).min() > 0.9999


@pytest.mark.parametrize("name", STORES)
def test_a_vector_store_finds_what_was_asked_for(name: str, demo: ServerProcess) -> None:
    assert run(name, demo.url) == [[0], [1], [2]]
