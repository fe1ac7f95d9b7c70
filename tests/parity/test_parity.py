"""Vectors, rows and pooled spans equal the real `llm2vec` 0.2.3's (see generate.py); mean pooling through HTTP."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from l2v.models import Input, load
from tests.conftest import PARITY, STACKS
from tests.serving import LocalServer

TOLERANCE = 1e-4
CASES = json.loads((PARITY / "cases.json").read_text(encoding="utf-8"))
RUNS = [
    (path.stem, name) for path in sorted((PARITY / "goldens").glob("*.safetensors")) for name in sorted(load_file(path))
]


def test_goldens_cover_the_contract() -> None:
    assert {stack for stack, _ in RUNS} == set(STACKS)
    assert len(CASES) > 30


@pytest.mark.parametrize(("stack", "name"), RUNS)
def test_vectors_equal_the_reference(stack: str, name: str, device: str) -> None:
    pooling, _, everything = name.partition(".")
    golden = load_file(PARITY / "goldens" / f"{stack}.safetensors")[name]
    mntp = f"McGill-NLP/LLM2Vec-{STACKS[stack][1]}-mntp"
    settings = {"dtype": "float32", "device": device, "pooling": pooling, "skip_instruction": not everything}
    encoder = load(mntp, [f"{mntp}-supervised"], **settings)  # type: ignore[arg-type]
    if name == "mean":
        inputs = [{"text": case["text"], "instruction": case["instruction"] or ""} for case in CASES]
        with LocalServer(encoder) as server:
            vectors = np.array(server.embed(inputs, normalize=False)["embeddings"], np.float32)
    else:
        vectors = encoder.encode([Input(case["text"], case["instruction"] or "") for case in CASES])

    difference = np.abs(vectors - golden).max(axis=1)
    worst = {CASES[i]["name"]: float(difference[i]) for i in np.nonzero(difference > TOLERANCE)[0]}
    assert not worst


@pytest.mark.parametrize("stack", sorted(STACKS))
@pytest.mark.parametrize("pooling", ["mean", "eos_token"])
def test_rows_and_spans_equal_the_reference(stack: str, pooling: str) -> None:
    golden = json.loads((PARITY / "goldens" / f"{stack}.json").read_text())[pooling]
    encoder = load(f"McGill-NLP/LLM2Vec-{STACKS[stack][1]}-mntp", dtype="float32", pooling=pooling)
    encodings = encoder.tokenize([Input(case["text"], case["instruction"] or "") for case in CASES])
    assert [list(encoding.ids) for encoding in encodings] == golden["ids"]
    assert [encoding.pooled for encoding in encodings] == golden["pooled"]
