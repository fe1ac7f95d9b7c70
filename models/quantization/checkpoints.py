"""Finds out whether the weights of a checkpoint are quantized. Such weights cannot be served."""

import re
from collections.abc import Mapping

# Matches the names of tensors that occur only among quantized weights.
_QUANTIZED = re.compile(
    r"[.:](qweight|qzeros|scales|g_idx|qdata|weight_scale(_inv|_2)?|weight_(packed|shape|zero_point|global_scale)"
    r"|input_(scale|global_scale|zero_point)|absmax|nested_absmax|quant_map|nested_quant_map|SCB|weight_format|W_q"
    r"|q_weight|q_scale|Qidxs|trellis|codebooks)$|\.quant_state\.|_proj_(blocks|scales)$|\.(w[123]|experts)_scales?$"
)
# Keys of config.json that mark quantized weights.
KEYS = ("quantization_config", "quantization")
_FULL_PRECISION = {"F64", "F32", "F16", "BF16"}


def quantized_tensor(dtypes: Mapping[str, str]) -> str:
    """The first tensor that shows that the weights are quantized; "" if the weights have full precision."""
    for name, dtype in dtypes.items():
        if _QUANTIZED.search(name) or (name.endswith("weight") and dtype not in _FULL_PRECISION):
            return name
    return ""


def refusal(name: str, mark: object, dtypes: Mapping[str, str]) -> str:
    """The reason why quantized weights cannot be served; "" if the weights have full precision.

    Args:
        name: the base's name.
        mark: the value of the first of `KEYS` that the base's config.json has; None if it has none.
        dtypes: the dtype of each tensor of the base, by the tensor's name. Dtypes are spelled as in safetensors, like
            `BF16`.
    """
    if not (tensor := quantized_tensor(dtypes)):
        return ""
    how = method(mark) if mark else "no quantization_config"
    return (
        f"the weights of {name} are quantized ({how}; for example {tensor} of type {dtypes[tensor]}): serve "
        "the original full-precision model instead; to quantize it while loading, set dtype to int8 or fp8"
    )


def method(mark: object) -> str:
    """How the weights are quantized, as a config says."""
    known = mark if isinstance(mark, dict) else {}
    return str(known.get("quant_method") or (f"{known['bits']} bits" if known.get("bits") else "unknown method"))
