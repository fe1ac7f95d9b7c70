"""Selects the device and the dtype of a model."""

import torch

from l2v.models.errors import ModelError, UnsupportedModelError, first_line
from l2v.models.faults import Fault
from l2v.models.quantization import fp8, int8
from l2v.models.types import DType

# The module that checks whether a device supports a dtype, and the required device in words.
_REQUIRED = {"int8": (int8, "a CPU with VNNI or AMX"), "fp8": (fp8, "an Ada, Hopper or newer GPU")}


def select_device(name: str) -> torch.device:
    """The named device; for `auto`, CUDA if it is available, else the CPU.

    Raises:
        ModelError: if torch does not know the device or cannot use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device {name} is unknown to torch: use auto, cpu or cuda") from error
    try:
        torch.empty(1, device=device).cpu()
    except Exception as error:  # backends that torch was not built with raise errors of any class
        reason = first_line(error).partition(". ")[0]
        raise ModelError(f"device {name} is not available ({reason}): use auto or cpu") from error
    return device


def check_dtype(name: DType, device: torch.device) -> None:
    """Checks that the device can compute in a dtype. Call it before reading weights.

    Raises:
        UnsupportedModelError: if the device cannot compute in the dtype.
    """
    module, required = _REQUIRED.get(name, (None, ""))
    if module and not module.available(device):
        raise UnsupportedModelError(f"dtype {name} requires {required}, which device {device} is not: use auto")


def select_dtype(name: DType, device: torch.device) -> torch.dtype:
    """The dtype to load weights in; for int8 and fp8, the dtype from which the weights are quantized."""
    if name == "fp8":
        return torch.bfloat16
    if name in ("auto", "int8"):
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 natively. Emulation takes several times as long as float32."""
    if device.type == "cuda":
        # `torch.cuda.is_bf16_supported` checks the current device, which may be a different device.
        return bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= 8
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def check_memory(error: Exception, model: torch.nn.Module, device: torch.device) -> None:
    """If an error means that a model does not fit into a device's memory, raises `ModelError` with advice."""
    if Fault.of(error) is not Fault.OUT_OF_MEMORY:
        return
    weights = list(model.parameters())
    size = sum(weight.numel() * weight.element_size() for weight in weights) / 1e9
    advice = "use a smaller model or a device with more memory"
    if weights[0].dtype == torch.float32:
        half = "float16" if device.type == "cuda" and not computes_bfloat16(device) else "bfloat16"
        advice = f"set dtype to {half}, or {advice}"
    dtype = str(weights[0].dtype).removeprefix("torch.")
    raise ModelError(f"the memory of device {device} is too small for the model ({size:.1f} GB in {dtype}): {advice}")
