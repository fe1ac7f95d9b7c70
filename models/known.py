"""A text whose vector was recorded when the model was made: whether it computes now what it did then.

python -m l2v.models.known      # records the built-in model anew, after a change of its files: vector and checksums
"""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2v.models import checksums
from l2v.models.encoder import Encoder
from l2v.models.errors import InputError, ModelError, SourceError
from l2v.models.sources import Source
from l2v.models.types import Input

FILE = "known.json"
_INPUT = Input("the cat sits on the mat", "Retrieve semantically similar text:")
_KINDS = {"text": str, "instruction": str, "dtype": str, "way": dict, "vector": str}
# Least cosine of then and now: within float32, and where one side is of another dtype.
_SAME, _CLOSE = 0.9999, 0.99


@dataclass(frozen=True)
class Known:
    """What a model gave for a text, and how it was asked.

    Attributes:
        input: the text and its instruction.
        dtype: in which the model computed.
        way: pooling, template, treatment of the instruction and sources: another way gives another vector.
        vector: [d] float32, not normalised.
    """

    input: Input
    dtype: str
    way: dict[str, Any]
    vector: NDArray[np.float32]

    @classmethod
    def of(cls, encoder: Encoder) -> "Known":
        """What the encoder gives now; without an instruction where its rows are too short for one."""
        try:
            encoder.tokenize([_INPUT])
            input_ = _INPUT
        except InputError:
            input_ = Input(_INPUT.text)
        return cls(input_, encoder.dtype, _way(encoder), encoder.encode([input_])[0])

    @classmethod
    def read(cls, source: Source) -> "Known | None":
        """What the source's folder records; raises `SourceError` for a record that is none."""
        content = source.read(FILE)
        if not content:
            return None
        try:
            if any(type(content[name]) is not kind for name, kind in _KINDS.items()):
                raise TypeError
            vector = np.frombuffer(base64.b64decode(content["vector"], validate=True), "<f4")
        except (KeyError, ValueError, TypeError) as error:
            raise SourceError(f"{FILE} of {source.name} is damaged: fetch or copy it again") from error
        return cls(Input(content["text"], content["instruction"]), content["dtype"], content["way"], vector)

    def write(self, folder: Path) -> None:
        content = {
            "text": self.input.text,
            "instruction": self.input.instruction,
            "dtype": self.dtype,
            "way": self.way,
            "vector": base64.b64encode(self.vector.astype("<f4").tobytes()).decode(),
        }
        (folder / FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def compare(self, encoder: Encoder) -> str:
        """How the encoder's vector compares with the recorded one, in words.

        Raises:
            ModelError: if they are not as close as the dtypes let them be.
        """
        try:
            (encoding,) = encoder.tokenize([self.input])
        except InputError:
            return "of a longer text than this model is told to take, so not compared"
        if self.way != _way(encoder) or encoding.truncated:
            return "of other sources or settings, so not compared"
        (vector,) = encoder.forward([encoding])
        if vector.shape != self.vector.shape:
            raise ModelError(f"the model gives {len(vector)} dimensions where {len(self.vector)} were recorded")
        lengths = np.linalg.norm(vector) * np.linalg.norm(self.vector)
        cosine = float(vector @ self.vector / lengths) if lengths else 0.0
        least = _SAME if self.dtype == encoder.dtype == "float32" else _CLOSE
        if not cosine >= least:
            raise ModelError(
                f"the model gives another vector for a known text than was recorded (cosine {cosine:.4f}, at least "
                f"{least}): its files are damaged or not of one model, or this machine computes wrongly"
            )
        return f"the same, cosine {cosine:.6f} ({self.dtype} then, {encoder.dtype} now)"


def _way(encoder: Encoder) -> dict[str, Any]:
    described = encoder.describe()
    return {name: described[name] for name in ("pooling", "template", "skip_instruction", "sources")}


def record_demo() -> None:
    """Notes the built-in model's vector and its files' checksums, as they are now."""
    from l2v.models.loading import load
    from l2v.models.published import STACKS

    stack = STACKS["demo"]
    folders = [Path(name) for name in (stack.model, *stack.adapters)]
    for folder in folders:
        (folder / checksums.FILE).unlink(missing_ok=True)
    (folders[-1] / FILE).unlink(missing_ok=True)
    Known.of(load("demo", dtype="float32")).write(folders[-1])
    for folder in folders:
        checksums.write(folder)


if __name__ == "__main__":
    record_demo()
