"""What requests need to know about a LoRA module: all but its weights. Imports no torch."""

from dataclasses import dataclass
from typing import Any

from l2v.models.declaration import Declaration
from l2v.models.tokenization import Tokenization


@dataclass(frozen=True)
class LoraModule:
    """A named LoRA module without its weights. It can be pickled, for processes that only tokenize.

    Attributes:
        id: identifies the module in encodings; at least 1, and never used again in this process.
        name: the name by which requests choose the module.
        source: the name, kind and revision of the module's source, as in `Encoder.provenance`.
        tokenization: converts inputs to token ids, with the module's template and lengths, and stores the module's id
            in each encoding.
        declaration: how the module is served.
        rank: the largest rank of the module's changes.
        layers: the number of linear layers that the module changes.
        left_out: the tensors of the module's files that an encoder does not need.
        other_base: the base that the module was trained on; "" if that is the served base, or unknown.
        nbytes: size of the module's weights on the device, in bytes.
        evidence: the result of the checks made while loading.
    """

    id: int
    name: str
    source: dict[str, str]
    tokenization: Tokenization
    declaration: Declaration
    rank: int
    layers: int
    left_out: tuple[str, ...]
    nbytes: int
    other_base: str = ""
    evidence: str = ""

    def describe(self) -> dict[str, Any]:
        """The module's properties, for `/info`."""
        return {
            "name": self.name,
            "source": self.source,
            "rank": self.rank,
            "layers": self.layers,
            "bytes": self.nbytes,
            "other_base": self.other_base or None,
            "left_out": list(self.left_out),
            "pooling": self.declaration.pooling.value,
            "template": self.declaration.template.value,
            "max_length": self.tokenization.max_length,
            "doc_max_length": self.tokenization.doc_max_length,
            "skip_instruction": self.tokenization.skip_instruction,
            "settings": self.declaration.describe(),
        }
