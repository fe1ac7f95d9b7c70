"""The types of the numbers in a vector: floats, 8-bit integers, or one bit per dimension."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from l2v.models.types import Int8Scale

# `binary` and `ubinary` pack the signs of eight dimensions into a byte, the first sign into the highest bit.
OutputDtype = Literal["float", "int8", "uint8", "binary", "ubinary"]
Numbers = NDArray[Any]
# The numpy types of the numbers in memory and in base64. All are little-endian.
NUMPY: dict[OutputDtype, str] = {"float": "<f4", "int8": "|i1", "uint8": "|u1", "binary": "|i1", "ubinary": "|u1"}
PACKED: tuple[OutputDtype, ...] = ("binary", "ubinary")
# uint8 and ubinary are int8 and binary plus 128, which is the same as flipping the highest bit.
_HIGHEST = np.uint8(128)


def quantize(vectors: NDArray[np.float32], dtype: OutputDtype, scale: Int8Scale) -> Numbers:
    """Converts [n, d] to 8-bit integers [n, d], or to packed bits [n, d / 8].

    Args:
        vectors: the vectors [n, d], not normalized, since `tanh` depends on their lengths.
        dtype: any type but `float`.
        scale: how a float becomes an 8-bit integer. `maximum` preserves cosine similarities up to rounding.
    """
    if dtype in PACKED:
        packed: Numbers = np.packbits(vectors > 0, axis=1)
        signed: Numbers = (packed ^ _HIGHEST).view(np.int8)
        return packed if dtype == "ubinary" else signed
    if scale == "tanh":
        scaled = np.tanh(vectors)
    else:
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        largest[largest == 0] = 1
        scaled = vectors / largest
    integers: Numbers = np.rint(scaled * 127).astype(np.int8)
    if dtype == "uint8":
        integers = integers.view(np.uint8) ^ _HIGHEST
    return integers


def dequantize(numbers: Numbers, dtype: OutputDtype) -> NDArray[np.float32]:
    """Converts numbers to floats [n, d], to compare vectors. Bits become 1 and -1; 8-bit integers keep their scale."""
    if dtype in PACKED:
        packed = numbers if dtype == "ubinary" else numbers.view(np.uint8) ^ _HIGHEST
        return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1
    floats: NDArray[np.float32] = numbers.astype(np.float32)
    return floats - 128 if dtype == "uint8" else floats


def stored_width(dimensions: int, dtype: OutputDtype) -> int:
    """The number of stored numbers per vector: packed types store eight dimensions in one number."""
    return dimensions // 8 if dtype in PACKED else dimensions
