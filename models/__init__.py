"""The encoder: a decoder-only LLM with merged LLM2Vec adapters, usable without HTTP.

Pure torch, transformers and peft; imports nothing from `app`.

    >>> from models import Input, load
    >>> encoder = load("demo")
    >>> encoder.encode([Input("the cat sits on the mat")]).shape
    (1, 256)
"""

from models.encoder import Encoder
from models.errors import AdapterError, InputError, ModelError, SourceError, UnsupportedModelError
from models.loading import load
from models.types import Batch, Encoding, Input

__all__ = [
    "AdapterError",
    "Batch",
    "Encoder",
    "Encoding",
    "Input",
    "InputError",
    "ModelError",
    "SourceError",
    "UnsupportedModelError",
    "load",
]
