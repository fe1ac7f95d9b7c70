"""Lower precisions and compiled layers, compared with the vectors of the real `llm2vec`."""

import json

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from l2v.models import Encoder, Input, load
from l2v.models.compilation import compile_layers
from l2v.models.quantization.int8 import available
from tests.conftest import PARITY, STACKS
from tests.models.test_attention import cosines
from tests.models.test_compilation import stance  # noqa: F401 - an autouse fixture
from tests.programs import program

INPUTS = [
    Input(case["text"], case["instruction"] or "")
    for case in json.loads((PARITY / "cases.json").read_text(encoding="utf-8"))
]
# Minimum cosine to the reference in float32. These models are 48 wide; rounding errors average out more in wider ones.
LEAST = {"bfloat16": 0.999, "float16": 0.9999, "int8": 0.995}


def served(stack: str, **settings: object) -> Encoder:
    mntp = f"McGill-NLP/LLM2Vec-{STACKS[stack][1]}-mntp"
    return load(mntp, [f"{mntp}-supervised"], **settings)  # type: ignore[arg-type]


def reference(stack: str) -> NDArray[np.float32]:
    return load_file(PARITY / "goldens" / f"{stack}.safetensors")["mean"]


@pytest.mark.parametrize("stack", sorted(STACKS))
@pytest.mark.parametrize("dtype", LEAST)
def test_lower_precision_is_close_to_the_reference(stack: str, dtype: str, device: str) -> None:
    if dtype == "int8" and not available(torch.device(device)):
        pytest.skip("this device has no products of int8")
    assert cosines(served(stack, dtype=dtype, device=device).encode(INPUTS), reference(stack)).min() >= LEAST[dtype]


@pytest.mark.filterwarnings("ignore")  # from the compiler
@pytest.mark.parametrize("stack", ["gemma", "mistral-instruct"])
def test_compiled_layers_equal_the_reference(stack: str, device: str) -> None:
    program("g++", "g++")
    encoder = served(stack, dtype="float32", device=device, prepack=False)
    compile_layers(encoder)
    assert np.abs(encoder.encode(INPUTS) - reference(stack)).max() <= 1e-4
