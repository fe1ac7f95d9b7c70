"""The precision of each dtype: the cosines of its vectors with those of float32.

python -m bench.closeness [SHAPE]
"""

import sys
from pathlib import Path

import numpy as np
import torch

from bench.shapes import SHAPES
from bench.workloads import workload
from l2v.models import Input, load
from l2v.models.quantization import fp8, int8

_TEXTS = 32
_CHECKPOINTS = Path(".cache/bench")


def main(shape: str = "135m") -> None:
    _CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    folder = str(SHAPES[shape].write(_CHECKPOINTS))
    texts = [Input(text) for text in workload("mixed", _TEXTS).texts]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    quantized = [name for name, library in (("int8", int8), ("fp8", fp8)) if library.available(device)]
    exact = None
    for dtype in ("float32", "bfloat16", *quantized):
        vectors = load(folder, dtype=dtype, device=str(device)).encode(texts).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        exact = vectors if exact is None else exact
        cosines = (vectors * exact).sum(1)
        print(f"{shape}, {dtype}: cosine to float32: mean {cosines.mean():.4f}, lowest {cosines.min():.4f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
