"""Selecting the device and the dtype of a model."""

import torch

from l2v.models.errors import ModelError
from l2v.models.types import DType


def select_device(name: str) -> torch.device:
    """The named device; for `auto`, CUDA if it is available, else the CPU. Raises `ModelError` for an unknown one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"device {name} is unknown to torch: use auto, cpu or cuda") from error


def select_dtype(name: DType, device: torch.device) -> torch.dtype:
    """The dtype to load weights in; for int8 and fp8, the dtype that they are quantized from."""
    if name == "fp8":
        return torch.bfloat16
    if name in ("auto", "int8"):
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 natively. Emulated, it takes several times as long as float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
