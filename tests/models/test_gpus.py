"""What depends on the GPU, for GPUs that are not here: dtype, kernels and memory."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn

from l2v.models import Encoder, Encoding, ModelError, attention
from l2v.models.allocator import unmap_weights
from l2v.models.attention import _has_kernel, packed_attention
from l2v.models.decoder import move
from l2v.models.devices import select_dtype
from l2v.models.warm_up import warm_up
from tests.models.test_attention import states
from tests.models.test_faults import OUT_OF_MEMORY


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """An A100, which is the current device, and a T4."""
    properties = [SimpleNamespace(major=8, minor=0), SimpleNamespace(major=7, minor=5)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties[torch.device(device).index])
    return [torch.device("cuda", index) for index in range(2)]


@dataclass(frozen=True)
class OnGpu:
    """What is asked of a tensor on a GPU."""

    device: torch.device
    dtype: torch.dtype = torch.float16
    shape: tuple[int, ...] = (1, 4, 3, 64)
    is_cuda: bool = True


def has_kernel(query: OnGpu, head_of_values: int = 0) -> bool:
    size = head_of_values or query.shape[-1]
    return _has_kernel(query, replace(query, shape=(1, 4, 3, size)))  # type: ignore[arg-type]


def test_gpus_before_ampere_compute_in_float32_and_without_the_kernel(two_gpus: list[torch.device]) -> None:
    """In a machine with both, the GPU that is named counts, not the current one."""
    ampere, turing = two_gpus
    assert [select_dtype("auto", device) for device in two_gpus] == [torch.bfloat16, torch.float32]
    assert select_dtype("fp8", ampere) == torch.bfloat16
    assert has_kernel(OnGpu(ampere))
    assert not has_kernel(OnGpu(turing))
    assert not has_kernel(OnGpu(ampere, torch.float32))


@pytest.mark.parametrize(
    ("size", "supported"), [(8, True), (80, True), (256, True), (4, False), (100, False), (264, False), (512, False)]
)
def test_the_kernel_of_gpus_gets_the_head_sizes_that_it_has(
    two_gpus: list[torch.device], size: int, supported: bool
) -> None:
    query = OnGpu(two_gpus[0], shape=(1, 4, 3, size))
    assert has_kernel(query) == supported
    assert not has_kernel(query, head_of_values=size + 8)


@pytest.mark.parametrize(
    ("causal", "windowed", "size"),
    [(False, False, None), (True, False, (-1, 0)), (False, True, (7, 7)), (True, True, (7, 0))],
)
def test_the_kernel_of_gpus_gets_the_window(
    causal: bool, windowed: bool, size: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, object]] = []

    def kernel(query: torch.Tensor, *_: object, **options: object) -> torch.Tensor:
        asked.append(options)
        return query

    monkeypatch.setattr(attention, "_has_kernel", lambda query, value: True)
    monkeypatch.setattr(attention, "_varlen_attn", kernel)
    bounds = torch.tensor([0, 3], dtype=torch.int32)
    options = {
        "cu_seqlens": bounds,
        "cu_seqlens_cpu": bounds,
        "max_seqlen": 3,
        "sliding_window": 8,
        "causal": causal,
        "windowed": windowed,
    }
    packed_attention(torch.nn.Identity(), states(3, 2), states(3, 2), states(3, 2), None, **options)  # type: ignore[arg-type]
    assert asked[0].get("window_size") == size


def test_the_kernel_of_gpus_depends_on_no_other_sequence() -> None:
    """As far as this version of torch lets one choose."""
    known = varlen_attn.__kwdefaults__ or {}
    options = {"enable_gqa": True, "num_splits": 1}
    assert attention._varlen_attn.keywords == {name: value for name, value in options.items() if name in known}  # type: ignore[attr-defined]


@dataclass(frozen=True)
class SmallGpu(Encoder):
    """The tiny encoder on a GPU that has not much memory.

    Attributes:
        memory: number of tokens that fit; larger batches raise the error.
        error: the form of the error.
        batches: the number of tokens of each forward pass.
    """

    memory: int = 0
    error: Exception = field(default_factory=MemoryError)
    batches: list[int] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", 0)

    def forward(self, encodings: list[Encoding]):  # type: ignore[no-untyped-def]
        self.batches.append(sum(map(len, encodings)))
        if self.batches[-1] > self.memory:
            raise self.error
        return []


def small_gpu(encoder: Encoder, memory: int, error: Exception) -> SmallGpu:
    return SmallGpu(
        **{name: getattr(encoder, name) for name in Encoder.__dataclass_fields__}, memory=memory, error=error
    )


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_the_warm_up_halves_the_budget_until_a_batch_fits(error: Exception, encoder: Encoder) -> None:
    gpu = small_gpu(encoder, 5000, error)
    assert warm_up(gpu) == 4096
    assert gpu.batches[-3:] == [16384, 8192, 4096]
    assert warm_up(gpu, 6000) == 3000


@pytest.mark.parametrize("memory", [0, 20])
def test_the_warm_up_ends_where_little_or_nothing_fits(memory: int, encoder: Encoder) -> None:
    gpu = small_gpu(encoder, memory, torch.OutOfMemoryError("CUDA out of memory."))
    if memory:
        assert warm_up(gpu) == 16
    else:
        with pytest.raises(ModelError, match="memory of device cuda:0 is too small for a forward pass of 16 tokens"):
            warm_up(gpu)


def test_another_error_of_the_warm_up_is_raised(encoder: Encoder) -> None:
    gpu = small_gpu(encoder, 5000, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        warm_up(gpu)
    assert gpu.batches[-1] == 16384


class Decoder(torch.nn.Linear):
    """A model that fits on no GPU."""

    def to(self, device: torch.device) -> "Decoder":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(
    ("gpu", "dtype", "advice"),
    [
        (0, torch.float32, "set dtype to bfloat16, or use a smaller model"),
        (1, torch.float32, "set dtype to float16, or use a smaller model"),
        (0, torch.bfloat16, "use a smaller model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_what_to_do(
    gpu: int, dtype: torch.dtype, advice: str, two_gpus: list[torch.device]
) -> None:
    model = Decoder(50_000, 20_000, bias=False, dtype=dtype, device="meta")
    size = f"{dtype.itemsize}.0 GB in {str(dtype).removeprefix('torch.')}"
    with pytest.raises(ModelError, match=rf"device cuda:{gpu} is too small for the model \({size}\): {advice}"):
        move(model, two_gpus[gpu])  # type: ignore[arg-type]


def test_weights_on_a_gpu_are_not_copied() -> None:
    """On the meta device, which has no memory either; on the CPU they are, see `unmap_weights`."""
    for device, copied in (("meta", False), ("cpu", True)):
        model = torch.nn.Linear(8, 8, device=device)
        before = model.weight.untyped_storage()._cdata
        unmap_weights(model)
        assert (model.weight.untyped_storage()._cdata != before) == copied
