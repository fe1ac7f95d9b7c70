"""LoRA modules beside the stacks of the real `llm2vec`: the rows of any mix equal the reference and merged stacks."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from l2v.models import Encoding, Input, load
from l2v.models.quantization.int8 import available
from tests.conftest import PARITY, STACKS
from tests.models.test_attention import cosines

INPUTS = [
    Input(case["text"], case["instruction"] or "")
    for case in json.loads((PARITY / "cases.json").read_text(encoding="utf-8"))
]
TOLERANCE = 1e-4
LEAST = {"bfloat16": 0.999, "int8": 0.995}


@pytest.mark.parametrize("stack", sorted(STACKS))
@pytest.mark.parametrize("dtype", ["float32", *LEAST])
def test_mixed_rows_equal_the_reference(stack: str, dtype: str) -> None:
    """The supervised adapter as a module on base and MNTP adapter, beside rows without it."""
    if dtype == "int8" and not available(torch.device("cpu")):
        pytest.skip("this CPU has no VNNI")
    mntp = f"McGill-NLP/LLM2Vec-{STACKS[stack][1]}-mntp"
    modules = {"supervised": f"{mntp}-supervised", "mntp": mntp}
    encoder = load(mntp, dtype=dtype, lora_modules=modules)  # type: ignore[arg-type]
    golden = load_file(PARITY / "goldens" / f"{stack}.safetensors")["mean"]
    own = encoder.adapters.modules["supervised"].tokenization(INPUTS)
    others = [encoder.tokenize(INPUTS), encoder.adapters.modules["mntp"].tokenization(INPUTS)]
    rows: list[Encoding] = []
    for index, row in enumerate(own):
        rows += [row, others[index % 2][index]]
    vectors = np.stack(encoder.forward(rows))[::2]
    if dtype == "float32":
        assert np.abs(vectors - golden).max() <= TOLERANCE
        again = load(mntp, [mntp], dtype="float32").encode(INPUTS[1:2])  # the MNTP adapter twice
        assert np.abs(encoder.forward(others[1][1:2])[0] - again[0]).max() <= TOLERANCE
    else:
        assert cosines(vectors, golden).min() >= LEAST[dtype]
