"""`python -m tests.chaos.launcher serve …` is `l2v serve …` with an encoder whose forward passes fail on command."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import l2v.app.cli
from l2v.models import Encoder, Encoding
from l2v.models.settings import ModelSettings
from tests.chaos.faults import NOT_FINITE, RAISES, VARIABLE, Faults

_load = ModelSettings.load


@dataclass(frozen=True)
class FaultyEncoder(Encoder):
    """An encoder with the faults that a file lists.

    Attributes:
        faults: the file.
        passes: one item per forward pass.
    """

    faults: Path = field(default_factory=Path)
    passes: list[None] = field(default_factory=list)

    def forward(self, encodings: list[Encoding]) -> list[NDArray[np.float32]]:
        faults, tokens = Faults.read(self.faults), sum(map(len, encodings))
        self.passes.append(None)
        _end_the_engine(faults.fatal, self.device)
        if faults.slow:
            threading.Event().wait(faults.slow)
        if faults.memory and tokens > faults.memory:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {tokens} tokens.")
        if faults.every and len(self.passes) % faults.every == 0:
            raise RuntimeError("an injected fault")
        texts = self.tokenization.tokenizer.decode_batch([encoding.ids.tolist() for encoding in encodings])
        if any(RAISES in text for text in texts):
            raise ValueError("a faulty text")
        vectors = super().forward(encodings)
        return [vector * np.nan if NOT_FINITE in text else vector for vector, text in zip(vectors, texts, strict=True)]


def _end_the_engine(fatal: str, device: torch.device) -> None:
    if fatal == "die":
        raise SystemExit
    if fatal == "lose" and device.type == "cuda":
        torch.zeros(1, device=device)[
            torch.tensor([9], device=device)
        ].cpu()  # an index out of range, which CUDA asserts
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
