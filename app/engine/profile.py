"""The properties of an encoder that requests need: everything but its weights. This module does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from l2v.models.declaration import Declaration
from l2v.models.tokenization import Tokenization
from l2v.models.types import Encoding, Input

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder
    from l2v.models.lora.module import LoraModule

# The properties in `/info` that an adapter may change.
_OWN = ("pooling", "template", "max_length", "doc_max_length", "skip_instruction", "settings")


@dataclass(frozen=True)
class Profile:
    """The properties of an encoder. A profile can be pickled, for processes that tokenize without the weights.

    Attributes:
        tokenization: converts inputs to token ids.
        declaration: what the model's files and the settings say about serving the model.
        width: the number of dimensions of a vector from the model.
        state_width: the number of dimensions of a token's state.
        dimensions: the number of leading dimensions to keep by default.
        description: the model's properties, for `/info`.
    """

    tokenization: Tokenization
    declaration: Declaration
    width: int
    state_width: int
    dimensions: int
    description: dict[str, Any]

    @classmethod
    def of(cls, encoder: "Encoder") -> "Profile":
        return cls(
            tokenization=encoder.tokenization,
            declaration=encoder.declaration,
            width=encoder.width,
            state_width=encoder.state_width,
            dimensions=encoder.dimensions,
            description=encoder.describe(),
        )

    def with_adapter(self, module: "LoraModule") -> "Profile":
        """The properties of this encoder with an unmerged adapter."""
        described, dimensions = module.describe(), module.declaration.truncate_dim.value or self.width
        own = {name: described[name] for name in _OWN} | {"dimensions": dimensions}
        own["sources"] = [*self.description["sources"], module.source]
        own["left_out"] = [*self.description["left_out"], *module.left_out]
        own["adapter"] = {name: described[name] for name in ("rank", "layers", "bytes", "other_base")}
        return replace(
            self,
            tokenization=module.tokenization,
            declaration=module.declaration,
            dimensions=dimensions,
            description=self.description | own,
        )

    def tokenize(self, inputs: Sequence[Input], *, truncate: bool = True) -> list[Encoding]:
        """Tokenizes inputs for this encoder. The arguments and errors are those of `Tokenization`."""
        return self.tokenization(inputs, truncate=truncate)

    def __getstate__(self) -> dict[str, Any]:
        # Keep this flag separately, since a pickled tokenizer loses it.
        return {**self.__dict__, "encode_special_tokens": self.tokenization.tokenizer.encode_special_tokens}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["tokenization"].tokenizer.encode_special_tokens = state.pop("encode_special_tokens")
        self.__dict__.update(state)
