"""Forward passes on a GPU: no host wait between input and pooled vectors, and no mixing of devices."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, partialmethod
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import PreTrainedModel

from l2v.models import Encoder, Encoding, load
from l2v.models import batch as batch_module
from l2v.models import encoder as encoder_module
from l2v.models.batch import Batch
from l2v.models.compilation import compile_layers
from l2v.models.lora.adapters import Adapters
from l2v.models.lora.layers import LoraLayers
from l2v.models.lora.module import LoraModule
from l2v.models.lora.products import Stack, stack
from l2v.models.lora.snapshot import Loaded, Snapshot
from l2v.models.lora.storage import JoinedFactors, join
from l2v.models.lora.weights import read_factors
from l2v.models.quantization import fp8
from l2v.models.sources import Source
from l2v.models.types import Attention, Pooling, Semantics
from tests import tiny
from tests.gpu_fake.gpu import CUDA, DEVICE, HostWaitError, on_gpu
from tests.models.test_attention import SUPPORTED
from tests.models.test_compilation import graphs, stance  # noqa: F401 - `stance` is an autouse fixture

LENGTHS = [(5,), (3, 7, 7, 19), (300, 1)]
WIDTH = 32
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def declaring(encoder: Encoder, **values: str) -> Encoder:
    declared = encoder.declaration
    changes = {name: replace(getattr(declared, name), value=value) for name, value in values.items()}
    return replace(encoder, declaration=replace(declared, **changes))  # type: ignore[arg-type]


@torch.inference_mode()
def run(encoder: Encoder) -> None:
    for lengths in LENGTHS:
        encodings = [Encoding(array("q", [1] * length), pooled=-(-length // 2)) for length in lengths]
        states, vectors = encoder._compute(encodings)
        assert states.device == vectors.device == DEVICE
        assert states.shape == (sum(lengths), WIDTH)
        assert (vectors.shape, vectors.dtype) == ((len(lengths), WIDTH), torch.float32)


def load_on_cpu(folder: Path) -> Encoder:
    return load(str(folder), dtype="float32", device="cpu", prepack=False)


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_an_architecture_waits_for_nothing(model_type: str, tmp_path: Path) -> None:
    on_cpu = load_on_cpu(tiny.make_base(tmp_path, model_type))
    for dtype in DTYPES:
        with on_gpu(on_cpu, dtype) as encoder:
            run(encoder)


@pytest.mark.parametrize("semantics", get_args(Semantics))
@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_pooling_waits_for_nothing(pooling: Pooling, semantics: Semantics, plain: Encoder) -> None:
    with on_gpu(declaring(plain, pooling=pooling, semantics=semantics)) as encoder:
        run(encoder)


@pytest.mark.parametrize("attention", get_args(Attention))
@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_wait_for_nothing(dtype: torch.dtype, attention: Attention, windowed: Encoder) -> None:
    with on_gpu(declaring(windowed, attention=attention), dtype) as encoder:
        run(encoder)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    encoder = load_on_cpu(tiny.make_base(tmp_path_factory.mktemp("windowed"), "mistral", sliding_window=5))
    return replace(encoder, declaration=replace(encoder.declaration, windowed=True))


@pytest.mark.parametrize(("capability", "head"), [((7, 5), 8), ((9, 0), 12), ((9, 0), 264)])
def test_attention_without_the_kernel_waits_for_nothing(
    capability: tuple[int, int], head: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU before Ampere, and with heads of sizes that the kernel refuses."""
    if not CUDA and head != 8:
        pytest.skip("needs a CUDA build of torch")
    monkeypatch.setattr("l2v.models.attention._varlen_attn", None)
    on_cpu = load_on_cpu(tiny.make_base(tmp_path, head_dim=head))
    with on_gpu(on_cpu, torch.float16, capability) as encoder:
        run(encoder)


def test_fp8_waits_for_nothing(plain: Encoder) -> None:
    """With few tokens and with many, for which there are different products."""
    with on_gpu(plain, then=fp8.quantize) as encoder:
        assert encoder.dtype == "fp8"
        run(encoder)


@pytest.mark.filterwarnings("ignore")  # warnings of the compiler
@pytest.mark.parametrize(
    ("dtype", "then"), [(torch.bfloat16, None), (torch.float32, None), (torch.bfloat16, fp8.quantize)]
)
def test_one_graph_serves_all_layers_and_lengths(
    dtype: torch.dtype, then: Callable[[PreTrainedModel], None] | None, plain: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Inductor, the default, would tune its kernels on the GPU.
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))
    before = graphs()
    with on_gpu(plain, dtype, opaque=True, then=then) as encoder:
        compile_layers(encoder)
        torch.compiler.set_stance("fail_on_recompile")
        run(encoder)
    assert graphs() == before + 1


# What an architecture could do with the hidden states.
FAULTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copies to the CPU": lambda states: states + states.cpu().to(DEVICE),
    "item": lambda states: states * states.max().item(),
    "tolist": lambda states: states * len(states.sum(-1).tolist()),
    "truth": lambda states: states if states.any() else states + 1,
    "a size by values": lambda states: states[states.sum(-1) > 0],
    "nonzero": lambda states: states + len(states.nonzero()),
    "a tensor of the CPU": lambda states: states + torch.ones(WIDTH, dtype=states.dtype),
    "a copy from the CPU": lambda states: states + torch.ones(WIDTH, dtype=states.dtype).to(DEVICE),
    "an index on the CPU": lambda states: states[torch.arange(len(states))],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_host_wait_is_found(fault: str, plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    if not CUDA and fault == "a copy from the CPU":
        pytest.skip("needs a CUDA build of torch")
    sound = encoder_module.hidden_states
    monkeypatch.setattr(
        encoder_module, "hidden_states", lambda *args, **options: FAULTS[fault](sound(*args, **options))
    )
    with on_gpu(plain) as encoder, pytest.raises((HostWaitError, RuntimeError)):
        run(encoder)


def test_lengths_on_the_gpu_are_found(plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = encoder_module.hidden_states

    def faulty(model: torch.nn.Module, batch: Batch, **options: bool) -> torch.Tensor:
        return sound(model, replace(batch, cu_seqlens_cpu=batch.cu_seqlens), **options)

    monkeypatch.setattr(encoder_module, "hidden_states", faulty)
    with on_gpu(plain, torch.float32) as encoder, pytest.raises(HostWaitError, match="lengths from the GPU"):
        run(encoder)


@pytest.mark.parametrize(("grouped", "then"), [(False, None), (True, None), (True, fp8.quantize)])
def test_modules_wait_for_nothing(
    grouped: bool, then: Callable[[PreTrainedModel], None] | None, plain: Encoder, adapter: Path
) -> None:
    """By slices as on any GPU, and by grouped products as on Hopper: four operations for seven layers of a block."""
    factors, cpu = read_factors(Source("adapter", adapter), plain.model), torch.device("cpu")
    with on_gpu(plain, then=then) as encoder:
        one = Batch.pack([Encoding(array("q", [1] * 5), pooled=1)], DEVICE)
        layers = LoraLayers(encoder.model, lambda: encoder_module.hidden_states(encoder.model, one))
        assert [len(group) for group in layers.groups] == [3, 1, 2, 1] * 2
        weights = join("adapter", factors, layers.groups, cpu, torch.bfloat16, padded=grouped)
        stacks = {name: Stack(*on_device(each.a, each.b)) for name, each in stack([weights] * 3, cpu).items()}
        weights = {name: JoinedFactors(*on_device(each.a, each.b)) for name, each in weights.items()}
        modules = [
            LoraModule(id_, f"m{id_}", {}, encoder.tokenization, encoder.declaration, 4, 14, nbytes=0, left_out=())
            for id_ in (1, 2, 3)
        ]
        adapters = Adapters(encoder.model, encoder.declaration, None)  # type: ignore[arg-type]
        adapters._layers = layers
        adapters._snapshot = Snapshot(
            loaded={module.id: Loaded(module, weights) for module in modules}, stacks=stacks if grouped else {}
        )
        for ids in ([0, 1], [0, 0, 1, 3], [2], [3, 3]):
            rows = [Encoding(array("q", [1] * (3 + n)), pooled=2, adapter=id_) for n, id_ in enumerate(ids)]
            with torch.inference_mode():
                states, vectors = replace(encoder, adapters=adapters)._compute(rows)
            assert (states.device, vectors.shape) == (DEVICE, (len(ids), WIDTH))


def on_device(a: torch.Tensor, b: Mapping[str, tuple[slice, torch.Tensor]]) -> tuple[torch.Tensor, Any]:
    move = partial(batch_module._to, DEVICE)
    return move(a), {layer: (columns, move(second)) for layer, (columns, second) in b.items()}
