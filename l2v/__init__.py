"""LLM2Vec embeddings: an encoder made of a decoder-only LLM, and the service around it.

>>> from l2v import Input, load
>>> encoder = load("demo")
>>> encoder.encode([Input("the cat sits on the mat")]).shape
(1, 256)
"""

from typing import TYPE_CHECKING

from l2v import models

if TYPE_CHECKING:
    from l2v.models import *  # noqa: F403

__all__ = models.__all__


def __getattr__(name: str) -> object:
    return getattr(models, name)  # imported on first use, so that `l2v --help` does not wait for torch
