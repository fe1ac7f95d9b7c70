"""Text embeddings from a decoder-only LLM: loads the model, merges its LLM2Vec adapters, and encodes texts.

This package uses torch, transformers and peft. It does not need the HTTP service, and imports nothing from `l2v.app`.

    >>> from l2v import Input, load
    >>> encoder = load("demo")
    >>> encoder.encode([Input("the cat sits on the mat")]).shape
    (1, 256)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder
    from l2v.models.errors import AdapterError, InputError, ModelError, SourceError, UnsupportedModelError
    from l2v.models.loading import load
    from l2v.models.types import Encoding, Input

__all__ = [
    "AdapterError",
    "Encoder",
    "Encoding",
    "Input",
    "InputError",
    "ModelError",
    "SourceError",
    "UnsupportedModelError",
    "load",
]

# The modules that define the names above, except those in `errors`. They are imported when a name is first used, so
# that `l2v --help` does not wait for torch.
_MODULES = {"Encoder": "encoder", "load": "loading", "Encoding": "types", "Input": "types"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"l2v.models.{_MODULES.get(name, 'errors')}"), name)
