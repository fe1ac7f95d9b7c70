"""Compiled layers give the same vectors as eager ones; if compilation fails, nothing changes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from l2v.models import Input, load
from l2v.models.compilation import compile_layers
from tests.models.test_attention import TEXTS, cosines
from tests.programs import program
from tests.serving import ServerProcess, wait_for


@pytest.fixture(autouse=True)
def stance() -> Iterator[None]:
    """Restores the compiler's state for other tests."""
    yield
    torch.compiler.set_stance("default")
    torch.compiler.reset()


def graphs() -> int:
    """Number of compilations so far."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
@pytest.mark.parametrize(("dtype", "least"), [("float32", 0.999999), ("bfloat16", 0.9999)])
def test_compiled_layers_give_the_same_vectors_alone_and_in_a_batch(
    adapter: Path, dtype: str, least: float, device: str
) -> None:
    program("g++", "g++")
    encoder = load(str(adapter), dtype=dtype, device=device, prepack=False)  # type: ignore[arg-type]
    inputs = [Input(text * n, instruction) for text in TEXTS for n, instruction in ((1, ""), (7, "Find it:"))]
    before = encoder.encode(inputs)
    earlier = graphs()
    compile_layers(encoder)
    compiled = graphs()
    assert compiled == earlier + 1, "all layers must share one compilation"
    assert cosines(encoder.encode(inputs), before).min() >= least
    alone = np.concatenate([encoder.encode([input_]) for input_ in inputs])
    assert cosines(alone, before).min() >= least
    assert graphs() == compiled, "a batch waited for the compiler"


def test_without_a_compiler_the_layers_stay_as_they_are(adapter: Path, tmp_path: Path) -> None:
    script = f"""
from l2v.models import Input, ModelError, load
from l2v.models.compilation import compile_layers
encoder = load({str(adapter)!r}, prepack=False)
before = encoder.encode([Input("a text")])
try:
    compile_layers(encoder)
except ModelError as error:
    print(error)
assert (encoder.encode([Input("a text")]) == before).all()
"""
    environment = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("the layers cannot be compiled: ")


def test_a_server_compiles_while_it_serves(tmp_path: Path) -> None:
    program("g++", "g++")
    outcomes = {"compiled", "serving without compilation"}
    with ServerProcess("--compile", TORCHINDUCTOR_CACHE_DIR=str(tmp_path)) as server:
        server.wait_ready()
        asked = {"inputs": TEXTS * 3}
        before = server.client.post("/embed", json=asked).json()["embeddings"]
        wait_for(lambda: outcomes & {line["message"] for line in server.log_lines}, 280, "compilation")
        outcome = next(line for line in server.log_lines if line["message"] in outcomes)
        assert outcome["message"] == "compiled", outcome["reason"]
        after = server.client.post("/embed", json=asked).json()["embeddings"]
        assert cosines(np.array(after), np.array(before)).min() >= 0.9999
        assert server.terminate() == 0
