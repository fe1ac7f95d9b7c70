"""An encoder whose forward passes wait at a gate, so that tests control the order of events."""

import threading
from dataclasses import dataclass, field

from l2v.models import Encoder, Encoding


@dataclass(frozen=True)
class GatedEncoder(Encoder):
    """The tiny encoder, with a gate before each forward pass."""

    gate: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)

    def forward(self, encodings: list[Encoding]):  # type: ignore[no-untyped-def]
        self.started.append(len(encodings))
        assert self.gate.wait(60)
        self.batches.append(len(encodings))
        return super().forward(encodings)
