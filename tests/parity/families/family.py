"""One family: the layout of its repository, and transformers' plain class that computes its golden."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from layout import Declaration, Json
from tiny_tokenizers import TokenizerFiles
from transformers import PreTrainedModel

Attention = Literal["causal", "bidirectional"]


@dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
        config: config.json as published, but with small sizes; token ids and the vocabulary size are filled in.
        native: keys to replace in it for the plain class, if the published type exists only as remote code; None if
            transformers knows the type.
        prefix: prefix of the names of the weights.
        head: the width of a projection that the publisher's code applies to every state, stored as `linear.weight`.
        eos_in_config_only: whether only tokenizer_config.json declares the token that ends a row.
    """

    name: str
    repositories: tuple[str, ...]
    seed: int
    model: type[PreTrainedModel]
    config: Json
    tokenizer: Callable[[], TokenizerFiles]
    attention: Attention
    declaration: Declaration | None
    native: Json | None = None
    prefix: str = ""
    head: int | None = None
    dtype: str = "bfloat16"
    eos_in_config_only: bool = False

    @property
    def remote_code(self) -> bool:
        return self.native is not None

    def native_config(self, config: Json) -> Json:
        """config.json for the plain class: the same sizes, with a type that transformers knows."""
        dropped = ("auto_map", "architectures", "num_labels", "pooling", "temperature", "use_bidirectional_attention")
        kept = {key: value for key, value in config.items() if key not in dropped}
        return kept | (self.native or {})


def sizes(**values: int) -> Json:
    """The sizes that all families share, with these values replaced."""
    defaults = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return defaults | {"num_key_value_heads": 2} | values
