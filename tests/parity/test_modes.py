"""The same vectors of the real `llm2vec` in the modes that compute otherwise than float32, layer by layer."""

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from l2v.models import Encoder, Input, load
from l2v.models.compilation import compile_layers
from l2v.models.int8 import available
from tests.conftest import PARITY, STACKS
from tests.models.test_attention import cosines
from tests.models.test_compilation import stance  # noqa: F401 - a fixture that is used by itself
from tests.programs import program

INPUTS = [
    Input(case["text"], case["instruction"] or "")
    for case in json.loads((PARITY / "cases.json").read_text(encoding="utf-8"))
]
# Least cosine to the reference in float32, of models 48 wide: wider ones average more roundings.
LEAST = {"bfloat16": 0.999, "float16": 0.9999, "int8": 0.995}


def served(stack: str, **told: object) -> Encoder:
    mntp = f"McGill-NLP/LLM2Vec-{STACKS[stack][1]}-mntp"
    return load(mntp, [f"{mntp}-supervised"], **told)  # type: ignore[arg-type]


def reference(stack: str) -> NDArray[np.float32]:
    return load_file(PARITY / "goldens" / f"{stack}.safetensors")["mean"]


@pytest.mark.parametrize("stack", sorted(STACKS))
@pytest.mark.parametrize("dtype", LEAST)
def test_vectors_in_fewer_bits_are_close_to_the_reference(stack: str, dtype: str) -> None:
    if dtype == "int8" and not available(torch.device("cpu")):
        pytest.skip("this CPU has no VNNI")
    assert cosines(served(stack, dtype=dtype).encode(INPUTS), reference(stack)).min() >= LEAST[dtype]


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("stack", ["gemma", "mistral-instruct"])
def test_compiled_layers_equal_the_reference(stack: str) -> None:
    program("g++", "g++")
    encoder = served(stack, dtype="float32", packed=False)
    compile_layers(encoder)
    assert np.abs(encoder.encode(INPUTS) - reference(stack)).max() <= 1e-4
