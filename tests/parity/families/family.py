"""One family: how its repository is laid out, and which plain class computes its golden."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from layout import Declaration, Json
from tiny_tokenizers import TokenizerFiles
from transformers import PreTrainedModel

Attention = Literal["causal", "bidirectional"]


@dataclass(frozen=True)
class Family:
    """`config` is config.json as published but for its sizes; token ids and the vocabulary's size are filled in.

    `native` replaces keys of it for the plain class, where the published type exists as remote code alone; None says
    that transformers knows the type. `prefix` stands before the names of the weights. `head` is the width of a
    projection that the publisher's code applies to every state, stored as `linear.weight`. `eos_in_config_only` says
    that tokenizer_config.json alone asks for the token that ends a row.
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
        """config.json for the plain class: the same sizes under a type that transformers knows."""
        dropped = ("auto_map", "architectures", "num_labels", "pooling", "temperature", "use_bidirectional_attention")
        kept = {key: value for key, value in config.items() if key not in dropped}
        return kept | (self.native or {})


def sizes(**values: int) -> Json:
    """The sizes that every family shares, but for those given."""
    defaults = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return defaults | {"num_key_value_heads": 2} | values
