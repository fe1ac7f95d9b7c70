"""`python -m tests.chaos.launcher serve …` is `l2v serve …` with an encoder whose forward passes fail on command."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import l2v.app.cli
from l2v.models import Encoder, Encoding, Input
from l2v.models.settings import ModelSettings
from tests.chaos.faults import NOT_FINITE, RAISES, VARIABLE, Faults

_load = ModelSettings.load


@dataclass(frozen=True)
class FaultyEncoder(Encoder):
    """The encoder that the settings name, with the faults that stand in a file.

    Attributes:
        faults: the file.
        guilty: the rows of token ids of guilty texts, and what they do.
        passes: counts the forward passes.
    """

    faults: Path = field(default_factory=Path)
    guilty: dict[bytes, str] = field(default_factory=dict)
    passes: list[None] = field(default_factory=list)

    def tokenize(self, inputs: list[Input]) -> list[Encoding]:  # type: ignore[override]
        encodings = super().tokenize(inputs)
        for input_, encoding in zip(inputs, encodings, strict=True):
            for kind in (RAISES, NOT_FINITE):
                if input_.text.startswith(kind):
                    self.guilty[encoding.ids.tobytes()] = kind
        return encodings

    def forward(self, encodings: list[Encoding]) -> list[NDArray[np.float32]]:
        faults, tokens = Faults.read(self.faults), sum(map(len, encodings))
        self.passes.append(None)
        _end_the_engine(faults.fatal)
        if faults.slow:
            threading.Event().wait(faults.slow)
        if faults.memory and tokens > faults.memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {tokens} tokens.")
        if faults.every and len(self.passes) % faults.every == 0:
            raise RuntimeError("a fault of the harness")
        kinds = [self.guilty.get(encoding.ids.tobytes()) for encoding in encodings]
        if RAISES in kinds:
            raise ValueError("a guilty text")
        vectors = super().forward(encodings)
        return [vector * np.nan if kind else vector for vector, kind in zip(vectors, kinds, strict=True)]


def _end_the_engine(fatal: str) -> None:
    if fatal == "die":
        raise SystemExit
    if fatal == "lose":
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    if fatal == "hang":
        threading.Event().wait()


def load(settings: ModelSettings, *, prepack: bool) -> Encoder:
    """The encoder of the settings, made faulty."""
    encoder = _load(settings, prepack=prepack)
    parts = {name: getattr(encoder, name) for name in Encoder.__dataclass_fields__}
    return FaultyEncoder(**parts, faults=Path(os.environ[VARIABLE]))


if __name__ == "__main__":
    ModelSettings.load = load  # type: ignore[assignment, method-assign]
    l2v.app.cli.main()
