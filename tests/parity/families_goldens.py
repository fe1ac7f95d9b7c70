"""The goldens of families/, and how vectors are compared with them."""

import json
from typing import Any

import numpy as np

from tests.conftest import PARITY

TOLERANCE = 1e-4
FAMILIES = PARITY / "families"
GOLDENS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (FAMILIES / "goldens").glob("*.json")}
# Every text is rendered through the chat template of its tokenizer.
REFUSED = ["st6-chat-template"]
SERVED = sorted(GOLDENS.keys() - set(REFUSED))
LLM2VEC = [name for name in SERVED if GOLDENS[name]["semantics"] == "llm2vec"]


def by_request(golden: dict[str, Any]) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The rows of a golden, grouped by what a caller asks for."""
    requests: dict[str, list[dict[str, Any]]] = {}
    for row in golden["rows"]:
        requests.setdefault(json.dumps(row["request"]), []).append(row)
    return [(json.loads(request), rows) for request, rows in requests.items()]


def unit(vectors: Any) -> np.ndarray:
    array = np.array(vectors, np.float64)
    return array / np.linalg.norm(array, axis=-1, keepdims=True)  # type: ignore[no-any-return]


def differences(rows: list[dict[str, Any]], vectors: Any) -> dict[str, float]:
    """The rows whose direction differs, by name."""
    found = np.abs(unit(vectors) - unit([row["vector"] for row in rows])).max(axis=1)
    return {f"{row['name']} {row['request']}": d for row, d in zip(rows, found.tolist(), strict=True) if d > TOLERANCE}
