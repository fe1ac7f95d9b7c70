"""The faults to inject: a small file that the harness writes and each forward pass reads.

The service itself has no hook for this. `tests.chaos.launcher` starts it with an encoder that reads the file.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "CHAOS_FAULTS"
# Prefixes of faulty texts. A forward pass fails as the prefix says if its batch contains such a text.
RAISES, NOT_FINITE = "faulty: raise.", "faulty: not finite."


@dataclass(frozen=True)
class Faults:
    """How forward passes fail.

    Attributes:
        every: every nth pass raises; 0 for none.
        memory: tokens that fit into memory; a larger pass raises torch's out-of-memory error; 0 for no limit.
        slow: seconds added to each pass.
        fatal: what the next pass does: `die` ends the engine thread, `lose` loses the device, `hang` never returns.
    """

    every: int = 0
    memory: int = 0
    slow: float = 0.0
    fatal: str = ""

    def write(self, path: Path) -> None:
        """Replaces the current faults, starting with the next forward pass."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(path)

    @classmethod
    def read(cls, path: Path) -> "Faults":
        return cls(**json.loads(path.read_text()))
