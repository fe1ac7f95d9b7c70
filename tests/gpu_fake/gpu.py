"""A GPU that computes shapes, dtypes and devices but no values, and that fails where the CPU would wait for it.

With a CUDA build of torch it is `cuda`, by torch's FakeTensorMode; the machine needs no GPU. With any other build it is
torch's `meta` device, which does not take the branches for CUDA.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from l2v.models import Encoder, attention, batch, compilation, encoder
from l2v.models.quantization import fp8

CUDA = torch.version.cuda is not None
DEVICE = torch.device("cuda", 0) if CUDA else torch.device("meta")
HALF = (torch.bfloat16, torch.float16)
# It gets the lengths on the CPU.
_MAY_MIX = {"l2v::segment_attention"}


class HostWaitError(AssertionError):
    """The CPU waits for the GPU, or an operation mixes tensors of both."""


class NoHostWait(TorchDispatchMode):
    """Fails if an operation copies between CPU and GPU and waits for that, or computes with tensors of both.

    An operation that reads values, such as `item`, fails anyway, since there are none.
    """

    @classmethod
    def is_infra_mode(cls) -> bool:
        return True  # the compiler leaves code alone that runs inside of any other mode

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = operation(*args, **(kwargs or {}))
        given = _tensors(args, kwargs)
        # A single number on the CPU is passed to a kernel by value.
        devices = {tensor.device.type for tensor in given if tensor.dim() or tensor.device.type != "cpu"}
        returned = {tensor.device.type for tensor in _tensors(output)}
        name = operation.name()
        if len(devices) > 1 and name not in _MAY_MIX:
            raise HostWaitError(f"{name} mixes tensors of {sorted(devices)}")
        if DEVICE.type in devices and "cpu" in returned:
            raise HostWaitError(f"{name} copies to the CPU")
        # The meta device knows neither pinned memory nor copies that the CPU does not wait for.
        if CUDA and devices == {"cpu"} and "cuda" in returned and not _overlaps(operation, given, args, kwargs):
            raise HostWaitError(f"{name} copies to the GPU and waits")
        return output


def _tensors(*values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _overlaps(operation: Any, given: list[torch.Tensor], args: Any, kwargs: Any) -> bool:
    """Whether the CPU goes on while a copy to the GPU runs."""
    names = [argument.name for argument in operation._schema.arguments]
    options = dict(zip(names, args, strict=False)) | (kwargs or {})
    return bool(options.get("non_blocking")) and all(getattr(tensor, "pinned", False) for tensor in given)


def _pin_memory(tensor: torch.Tensor) -> torch.Tensor:
    """Stands in for `Tensor.pin_memory`, which needs a GPU's driver."""
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


class HostTensor:
    """The values of a tensor on the CPU; inside FakeTensorMode, tensors have none."""

    def __init__(self, tensor: torch.Tensor) -> None:
        if tensor.device.type != "cpu":
            raise HostWaitError("attention reads the lengths from the GPU")
        with unset_fake_temporarily():
            self.tolist = tensor.tolist().copy


@contextmanager
def on_gpu(
    on_cpu: Encoder,
    dtype: torch.dtype = torch.bfloat16,
    capability: tuple[int, int] = (9, 0),
    *,
    opaque: bool = False,
    then: Callable[[PreTrainedModel], None] | None = None,
) -> Iterator[Encoder]:
    """Copies an encoder to a GPU, on which its functions must run without a host wait.

    Args:
        on_cpu: the encoder on the CPU, with neither prepacked nor quantized weights.
        dtype: of the weights.
        capability: the compute capability of the GPU.
        opaque: do not run what is inside of the operations that are opaque to the compiler.
        then: called with the model on the GPU.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True) if CUDA else nullcontext()
    properties = SimpleNamespace(major=capability[0], minor=capability[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_properties", lambda device=None: properties)
        patch.setattr(torch.Tensor, "pin_memory", _pin_memory)
        patch.setattr(batch, "_to", _checked(batch._to, mode))
        patch.setattr(Encoder, "pool", _checked(Encoder.pool, mode))
        for module in (encoder, compilation):
            patch.setattr(module, "hidden_states", _checked(encoder.hidden_states, mode))
        if not opaque:
            patch.setattr(attention, "segment_attention", partial(_segment_attention, attention.segment_attention))
            patch.setattr(fp8, "fp8_product", partial(_fp8_product, fp8.fp8_product))
        if not CUDA:
            patch.setattr(attention, "_has_kernel", lambda query, value: query.dtype in HALF and capability >= (8, 0))
            patch.setattr(fp8, "available", lambda device: True)
        moved = replace(on_cpu, model=deepcopy(on_cpu.model), head=deepcopy(on_cpu.head))
        with mode:
            _move(moved, dtype)
            if then:
                then(moved.model)
        yield moved


def _checked(function: Callable[..., Any], mode: Any) -> Callable[..., Any]:
    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if CUDA:  # arguments with values, which the mode would compute with
            args = tuple(mode.from_tensor(value) if isinstance(value, torch.Tensor) else value for value in args)
        with mode, NoHostWait():
            return function(*args, **kwargs)

    return checked


def _segment_attention(operation: Any, query: Any, key: Any, value: Any, cu_seqlens_cpu: Any, *args: Any) -> Any:
    inside = operation._init_fn(query, key, value, HostTensor(cu_seqlens_cpu), *args)
    return _same(inside, operation(query, key, value, cu_seqlens_cpu, *args))


def _fp8_product(operation: Any, *args: Any) -> Any:
    return _same(operation._init_fn(*args), operation(*args))


def _same(inside: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """What the compiler is told of an operation must be what it returns."""
    kinds = [(output.shape, output.stride(), output.dtype, output.device) for output in (inside, outside)]
    assert kinds[0] == kinds[1]
    return outside


def _move(moved: Encoder, dtype: torch.dtype) -> None:
    for module in (*moved.model.modules(), *moved.head.modules()):
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(_like(weight, dtype), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _like(buffer, buffer.dtype)


def _like(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=DEVICE)
