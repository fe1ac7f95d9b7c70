"""The nouns that travel from a request to the vectors, and who fills each field. Free of torch."""

from array import array
from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "weighted_mean", "eos_token", "last_token", "bos_token"]
DType = Literal["auto", "float32", "bfloat16", "float16", "int8", "fp8"]
# Dtypes that weights are rounded to while a model is loaded, which can then be neither saved nor trained.
ROUNDED: tuple[DType, ...] = ("int8", "fp8")


def is_unicode(text: str) -> bool:
    """Whether a text is whole: JSON, and bytes that are no UTF-8, may leave halves of characters (lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Input:
    """What a caller wants embedded. Filled by the caller.

    Attributes:
        text: what is embedded.
        instruction: what it goes under; "" for none.
        keep_end: where the text is too long, keep its end rather than its beginning.
    """

    text: str
    instruction: str = ""
    keep_end: bool = False


@dataclass(frozen=True, slots=True)
class Encoding:
    """One input as token ids. Filled by `Tokenization`.

    Attributes:
        ids: the whole row, 64 bits an id: special tokens, template, instruction, text, suffix.
        pooled: how many of the last positions are pooled; 0: none, every position's state is wanted.
        truncated: whether some of the text was cut off.
    """

    ids: "array[int]"
    pooled: int
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.ids)
