"""Linear layers in fp8; on the CPU with torch's reference implementation of the product."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from l2v.models import Encoder, Input, UnsupportedModelError, load
from l2v.models.compilation import compile_layers
from l2v.models.errors import ModelError
from l2v.models.export import export
from l2v.models.quantization import fp8
from l2v.models.quantization.fp8 import Fp8Linear, quantize_rows
from l2v.models.quantization.inputs import InputQuantizer
from tests import tiny
from tests.models.test_attention import cosines
from tests.models.test_compilation import stance  # noqa: F401 - an autouse fixture
from tests.programs import program

INPUTS = [Input(f"text {i} " + "of some words " * (i * 5 % 30), "Find it:" * (i % 2)) for i in range(8)]

# Minimum cosine of the built-in model, which is 256 wide, on short texts. In wider models, more rounding errors
# cancel out.
LEAST = 0.99


@pytest.fixture
def fp8_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretends that this CPU has fp8 products."""
    monkeypatch.setattr(fp8, "available", lambda device: True)


@pytest.fixture
def demo(device: str, request: pytest.FixtureRequest) -> Encoder:
    if device == "cpu":
        request.getfixturevalue("fp8_on_cpu")
    elif not fp8.available(torch.device(device)):
        pytest.skip("this GPU has no fp8 products")
    return load("demo", dtype="fp8", device=device)


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_gives_the_product_of_what_it_rounds(*, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(256, 48, bias=bias, dtype=torch.bfloat16)
    # Tokens of very different norms; one whose values have the same magnitude; and one of zeros.
    states = torch.randn(9, 256) * torch.logspace(-3, 3, 9)[:, None]
    states[7], states[8] = states[7].sign() * 1.73, 0
    states = states.to(torch.bfloat16)[None]
    with torch.inference_mode():
        expected, given = linear(states).double(), Fp8Linear(linear, InputQuantizer(quantize_rows))(states)
    assert given.dtype == torch.bfloat16
    assert given.shape == expected.shape
    error = (given.double() - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=1e-9)
    assert error.max() < 0.05


def test_quantization_neither_produces_nor_hides_nan_and_infinity() -> None:
    torch.manual_seed(0)
    states = torch.randn(4096, 32).to(torch.bfloat16) * torch.logspace(-20, 20, 4096)[:, None].to(torch.bfloat16)
    values, scale = quantize_rows(states)
    assert values.float().isfinite().all()
    largest = (values.float() * scale).abs().amax(-1) / states.float().abs().amax(-1)
    assert (largest - 1).abs().max() < 0.04
    states[0, 2], states[1, 2] = torch.nan, torch.inf
    linear = torch.nn.Linear(32, 16, dtype=torch.bfloat16)
    with torch.inference_mode():
        given = Fp8Linear(linear, InputQuantizer(quantize_rows))(states[:3])
    assert given.isfinite().all(-1).tolist() == [False, False, True]


@pytest.fixture
def exact() -> Encoder:
    return load("demo", dtype="float32", device="cpu")


def test_vectors_are_close_to_those_of_float32_alone_and_in_a_batch(demo: Encoder, exact: Encoder) -> None:
    expected = exact.encode(INPUTS)
    assert cosines(demo.encode(INPUTS), expected).min() >= LEAST
    assert cosines(np.concatenate([demo.encode([input_]) for input_ in INPUTS]), expected).min() >= LEAST
    assert demo.dtype == "fp8"
    assert demo.describe() | {"dtype": "float32", "device": "cpu"} == exact.describe()
    assert demo.weight_bytes < 0.4 * exact.weight_bytes
    assert any(line.startswith("fp8: ") for line in demo.evidence)


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
def test_compiled_layers_are_as_close(demo: Encoder, exact: Encoder) -> None:
    program("g++", "g++")
    compile_layers(demo)
    assert cosines(demo.encode(INPUTS), exact.encode(INPUTS)).min() >= LEAST


def test_fp8_weights_are_not_exported(demo: Encoder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="another dtype"):
        export(demo, tmp_path / "out")


def test_a_layer_of_unsupported_shape_is_named(fp8_on_cpu: None, tmp_path: Path) -> None:
    folder = tiny.make_base(tmp_path, intermediate_size=40)
    with pytest.raises(UnsupportedModelError, match=r"multiples of 16, but .*gate_proj is \[40, "):
        load(str(folder), dtype="fp8", device="cpu")


def test_a_device_without_fp8_products_is_refused() -> None:
    command = [sys.executable, "-m", "l2v.app.cli", "check", "--dtype", "fp8", "--device", "cpu"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "dtype fp8 requires an Ada, Hopper or newer GPU" in done.stderr
