"""Record the built-in model's reference vector and checksums, after a change of its files.

python -m examples.demo_model.record
"""

from pathlib import Path

from l2v.models import checksums, load
from l2v.models.published import STACKS
from l2v.models.reference_vector import FILE, FORMER_FILE, ReferenceVector


def record() -> None:
    """Writes the built-in model's reference vector and the checksums of its files."""
    stack = STACKS["demo"]
    folders = [Path(name) for name in (stack.model, *stack.adapters)]
    for folder in folders:
        (folder / checksums.FILE).unlink(missing_ok=True)
    for file in (FILE, FORMER_FILE):
        (folders[-1] / file).unlink(missing_ok=True)
    ReferenceVector.of(load("demo", dtype="float32")).write(folders[-1])
    for folder in folders:
        checksums.write(folder)


if __name__ == "__main__":
    record()
