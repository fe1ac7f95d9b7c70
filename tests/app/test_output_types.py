"""Types of numbers other than floats, on every surface, and the warning about dimensions."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2v.app.engine.output_types import NUMPY, OutputDtype, dequantize, quantize
from l2v.app.engine.vectors import normalize
from l2v.models import Encoder, Input, load
from tests.serving import LocalServer

TEXTS = ["hello", "the cat sits on the mat"]
# The largest change of a cosine of the tiny model's vectors.
LOSSES: dict[OutputDtype, float] = {"int8": 0.01, "uint8": 0.01, "binary": 0.6, "ubinary": 0.6}


def cosines(vectors: np.ndarray) -> np.ndarray:
    unit = normalize(vectors.astype(np.float32))
    return unit @ unit.T


def test_packed_bits_are_those_of_sentence_transformers_and_voyage() -> None:
    row = np.array([[0.5, -0.5, 0.0, 2, -1, -1, -1, 3]], np.float32)
    assert quantize(row, "ubinary", "maximum").tolist() == [[0b10010001]]
    assert quantize(row, "binary", "maximum").tolist() == [[0b10010001 - 128]]
    assert dequantize(quantize(row, "binary", "maximum"), "binary").tolist() == [[1, -1, -1, 1, -1, -1, -1, 1]]


def test_integers_are_scaled_per_vector() -> None:
    rows = np.array([[0.5, -0.25], [-80, 40], [0, 0]], np.float32)
    assert quantize(rows, "int8", "maximum").tolist() == [[127, -64], [-127, 64], [0, 0]]
    assert quantize(rows, "uint8", "maximum").tolist() == [[255, 64], [1, 192], [128, 128]]
    assert quantize(rows, "int8", "tanh").tolist() == [[59, -31], [-127, 127], [0, 0]]


@pytest.mark.parametrize("dtype", LOSSES)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embed_and_openai_return_the_type(
    dtype: OutputDtype, encoding: str, server: LocalServer, encoder: Encoder
) -> None:
    fields = {"output_dtype": dtype, "encoding_format": encoding}
    native = server.embed(TEXTS, **fields)
    openai = server.client.post("/v1/embeddings", json={"input": TEXTS, **fields}).json()
    assert [item["embedding"] for item in openai["data"]] == native["embeddings"]
    assert native["dimensions"] == encoder.width
    rows = native["embeddings"]
    if encoding == "base64":
        rows = [np.frombuffer(base64.b64decode(row), NUMPY[dtype]) for row in rows]
    numbers = np.array(rows, NUMPY[dtype])
    raw = encoder.encode([Input(text) for text in TEXTS])
    np.testing.assert_allclose(cosines(dequantize(numbers, dtype)), cosines(raw), atol=LOSSES[dtype])
    # Lengths have no effect on these types.
    assert server.embed(TEXTS, normalize=False, **fields)["embeddings"] == native["embeddings"]


def test_packed_types_take_multiples_of_8_dimensions(server: LocalServer) -> None:
    row = server.embed("hello", output_dtype="ubinary", dimensions=16)
    floats = np.array(server.embed("hello", dimensions=16)["embeddings"])
    assert row["embeddings"] == np.packbits(floats > 0, axis=1).tolist()
    assert row["dimensions"] == 16
    for path, fields, param in (
        ("/embed", {"inputs": "hello", "output_dtype": "binary", "dimensions": 12}, "dimensions"),
        ("/v1/embeddings", {"input": "hello", "output_dtype": "ubinary", "dimensions": 12}, "dimensions"),
    ):
        error = server.client.post(path, json=fields).json()["error"]
        assert error["param"] == param
        assert "choose a multiple of 8" in error["message"]
    assert server.embed("hello", output_dtype="int8", dimensions=12)["dimensions"] == 12


def test_pplx_embed_has_the_integers_that_its_publisher_defines() -> None:
    folder = Path(__file__).parents[1] / "parity/families/stacks/pplx-embed"
    encoder = load(str(folder), dtype="float32")
    raw = encoder.encode([Input("hello")])
    with LocalServer(encoder) as server:
        assert server.embed("hello", output_dtype="int8")["embeddings"] == np.rint(np.tanh(raw) * 127).tolist()
        assert server.client.get("/info").json()["settings"]["int8_scale"] == {
            "value": "tanh",
            "origin": "modules.json",
        }


def test_dimensions_that_the_model_does_not_declare_get_a_warning(server: LocalServer, encoder: Encoder) -> None:
    def warning(path: str, **content: Any) -> str | None:
        found: str | None = server.client.post(path, json=content).headers.get("warning")
        return found

    for found in (
        warning("/embed", inputs="a", dimensions=8),
        warning("/v1/embeddings", input="a", dimensions=8),
        warning("/tei/embed", inputs="a", dimensions=8),
        warning("/v2/embed", texts=["a"], output_dimension=8),
    ):
        assert found is not None
        assert found.startswith('299 - "the model does not declare support for 8 dimensions')
    assert warning("/embed", inputs="a") is None
    assert warning("/embed", inputs="a", dimensions=encoder.width) is None


def test_cohere_takes_prompts_limits_and_truncation(encoder: Encoder) -> None:
    long = "word " * 500
    with LocalServer(encoder, query_instruction="Find:") as server:

        def embed(**fields: Any) -> Any:
            return server.client.post("/v2/embed", json={"model": "any", **fields})

        expected = np.array(server.embed("hello", instruction="Find:")["embeddings"])
        found = embed(texts=["hello"], input_type="search_query").json()["embeddings"]
        np.testing.assert_allclose(found["float"], expected, atol=1e-6)
        plain = embed(texts=["hello"], input_type="clustering").json()["embeddings"]["float"]
        np.testing.assert_allclose(plain, server.embed("hello")["embeddings"], atol=1e-6)
        start, end = (embed(texts=[long], truncate=side, max_tokens=9).json() for side in ("START", "END"))
        assert start["meta"]["billed_units"] == end["meta"]["billed_units"] == {"input_tokens": 9}
        for fields, words in (
            ({"texts": [long], "truncate": "NONE"}, "texts[0].text"),
            ({"texts": ["a"], "images": ["data:"]}, "Only texts"),
            ({"texts": ["a"], "output_dimension": 12, "embedding_types": ["binary"]}, "'output_dimension'"),
            ({"texts": ["a"], "embedding_types": ["float16"]}, "'embedding_types[0]'"),
            ({"texts": ["a"], "input_type": "image"}, "'input_type'"),
        ):
            response = embed(**fields)
            assert response.status_code == 400
            assert response.json().keys() == {"message"}
            assert words in response.json()["message"]
        hint = server.client.post("/v2/v2/embed", json={}).json()["message"]
        assert hint.endswith("Did you mean /v2/embed? The client's base URL should have no path.")
