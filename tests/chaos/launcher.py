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
    """An encoder with the faults that a file lists.

    Attributes:
        faults: the file.
        faulty: token ids of faulty texts (as bytes) → how they fail.
        passes: one item per forward pass.
    """

    faults: Path = field(default_factory=Path)
    faulty: dict[bytes, str] = field(default_factory=dict)
    passes: list[None] = field(default_factory=list)

    def tokenize(self, inputs: list[Input]) -> list[Encoding]:  # type: ignore[override]
        encodings = super().tokenize(inputs)
        for input_, encoding in zip(inputs, encodings, strict=True):
            for kind in (RAISES, NOT_FINITE):
                if input_.text.startswith(kind):
                    self.faulty[encoding.ids.tobytes()] = kind
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
            raise RuntimeError("an injected fault")
        kinds = [self.faulty.get(encoding.ids.tobytes()) for encoding in encodings]
        if RAISES in kinds:
            raise ValueError("a faulty text")
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
    """Loads the encoder of the settings as a faulty one."""
    encoder = _load(settings, prepack=prepack)
    parts = {name: getattr(encoder, name) for name in Encoder.__dataclass_fields__}
    return FaultyEncoder(**parts, faults=Path(os.environ[VARIABLE]))


if __name__ == "__main__":
    ModelSettings.load = load  # type: ignore[assignment, method-assign]
    l2v.app.cli.main()
