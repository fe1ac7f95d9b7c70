"""Which faults the server of a chaos run is to have: a small file that the harness writes and each forward pass reads.

The shipped service knows nothing of this. `tests.chaos.launcher` starts it with an encoder that does.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "CHAOS_FAULTS"
# A text that begins so is guilty: every forward pass that holds it fails in this way.
RAISES, NOT_FINITE = "guilty: raise.", "guilty: not finite."


@dataclass(frozen=True)
class Faults:
    """What happens in the forward passes from now on.

    Attributes:
        every: each so-manyth pass raises; 0: none.
        memory: tokens that fit; more raise torch's own out-of-memory error; 0: all fit.
        slow: seconds that each pass takes longer.
        fatal: what the next pass does: `die` ends the engine thread, `lose` loses the device, `hang` never returns.
    """

    every: int = 0
    memory: int = 0
    slow: float = 0.0
    fatal: str = ""

    def write(self, path: Path) -> None:
        """Puts the faults in place; they hold from the next forward pass."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Faults":
        return cls(**json.loads(path.read_text()))
