"""Reference vector: the embedding of a fixed text, recorded when a model is made and compared when it is loaded."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2v.models.encoder import Encoder
from l2v.models.errors import InputError, ModelError, SourceError
from l2v.models.sources import Source
from l2v.models.types import Input

FILE = "reference_vector.json"
# The names of the file and of its key `settings` in earlier exports.
FORMER_FILE, _FORMER_SETTINGS = "known.json", "way"
_INPUT = Input("the cat sits on the mat", "Retrieve semantically similar text:")
_TYPES = {"text": str, "instruction": str, "dtype": str, "settings": dict, "vector": str}
# Minimum cosine if both vectors were computed in float32, and if either was computed in another dtype.
_MIN_COSINE_FLOAT32, _MIN_COSINE = 0.9999, 0.99


@dataclass(frozen=True)
class ReferenceVector:
    """The embedding of a text, and how it was computed.

    Attributes:
        input: the text and its instruction.
        dtype: the dtype that the model computed in.
        settings: the settings that the vector depends on: pooling, template, `skip_instruction`, sources, attention and
            semantics.
        vector: [d] float32, not normalized.
    """

    input: Input
    dtype: str
    settings: dict[str, Any]
    vector: NDArray[np.float32]

    @classmethod
    def of(cls, encoder: Encoder) -> "ReferenceVector":
        """Computes the vector, without an instruction if the encoder's `max_length` leaves no room for it."""
        try:
            encoder.tokenize([_INPUT])
            input_ = _INPUT
        except InputError:
            input_ = Input(_INPUT.text)
        return cls(input_, encoder.dtype, _settings(encoder), encoder.encode([input_])[0])

    @classmethod
    def read(cls, source: Source) -> "ReferenceVector | None":
        """Reads the vector in the source's folder, if there is one. Raises `SourceError` if the file is damaged."""
        file = FILE if (source.folder / FILE).is_file() else FORMER_FILE
        content = source.read(file)
        if not content:
            return None
        if _FORMER_SETTINGS in content:
            content["settings"] = content.pop(_FORMER_SETTINGS)
        try:
            if any(type(content[name]) is not kind for name, kind in _TYPES.items()):
                raise TypeError
            vector = np.frombuffer(base64.b64decode(content["vector"], validate=True), "<f4")
        except (KeyError, ValueError, TypeError) as error:
            raise SourceError(f"{file} of {source.name} is damaged: download or copy it again") from error
        return cls(Input(content["text"], content["instruction"]), content["dtype"], content["settings"], vector)

    def write(self, folder: Path) -> None:
        content = {
            "text": self.input.text,
            "instruction": self.input.instruction,
            "dtype": self.dtype,
            "settings": self.settings,
            "vector": base64.b64encode(self.vector.astype("<f4").tobytes()).decode(),
        }
        (folder / FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def compare(self, encoder: Encoder) -> str:
        """Compares the vector with the one that the encoder computes.

        Returns:
            The outcome, in words.

        Raises:
            ModelError: if the cosine is lower than the dtypes allow, or the vectors differ in their dimensions.
        """
        try:
            (encoding,) = encoder.tokenize([self.input])
        except InputError:
            return "not compared, since its text is too long for this max_length"
        if self.settings != _settings(encoder) or encoding.truncated:
            return "not compared, since it was recorded with other sources or settings"
        vector = encoder.forward([encoding])[0][: encoder.dimensions]
        if vector.shape != self.vector.shape:
            raise ModelError(
                f"the model computes {len(vector)} dimensions, but its reference vector has {len(self.vector)}: its "
                "files do not belong together"
            )
        norms = np.linalg.norm(vector) * np.linalg.norm(self.vector)
        cosine = float(vector @ self.vector / norms) if norms else 0.0
        least = _MIN_COSINE_FLOAT32 if self.dtype == encoder.dtype == "float32" else _MIN_COSINE
        if not cosine >= least:
            raise ModelError(
                f"the model does not reproduce its reference vector (cosine {cosine:.4f}, at least {least} is "
                "required): its files are damaged or do not belong together, or this machine computes incorrectly"
            )
        return f"reproduced, cosine {cosine:.6f} (recorded in {self.dtype}, computed in {encoder.dtype})"


def _settings(encoder: Encoder) -> dict[str, Any]:
    described, declared = encoder.describe(), encoder.declaration
    settings = {name: described[name] for name in ("pooling", "template", "skip_instruction", "sources")}
    # Omit defaults, since earlier exports did not record these two settings.
    further = {"attention": declared.attention.value, "semantics": declared.semantics.value}
    return settings | {name: value for name, value in further.items() if value not in ("bidirectional", "llm2vec")}
