"""The types that all stages share, from inputs to vectors. Does not import torch."""

from array import array
from dataclasses import dataclass
from typing import Literal

Pooling = Literal["mean", "weighted_mean", "eos_token", "last_token", "bos_token"]
Attention = Literal["bidirectional", "causal"]
# How an instruction and a text become tokens, and which tokens are pooled: as in LLM2Vec, or as in
# sentence-transformers.
Semantics = Literal["llm2vec", "sentence-transformers"]
Metric = Literal["cosine", "dot"]
# How a float becomes an 8-bit integer: 127 · x / the vector's largest |x|, or 127 · tanh(x).
Int8Scale = Literal["maximum", "tanh"]
DType = Literal["auto", "float32", "bfloat16", "float16", "int8", "fp8"]
# The dtypes that quantize a model while it is loaded. Quantized models can be neither saved nor trained.
QUANTIZED: tuple[DType, ...] = ("int8", "fp8")


def is_unicode(text: str) -> bool:
    """Whether a text is valid Unicode. JSON and undecodable bytes may put invalid lone surrogates into a string."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_fault(value: object) -> str | None:
    """Why a value is not a valid text, as the end of a sentence; None if the value is a valid text."""
    if not isinstance(value, str):
        return "is null" if value is None else f"must be text, not {type(value).__name__}"
    if "\0" in value:
        return "must not contain a NUL character"
    return None if is_unicode(value) else "must be Unicode text, without lone surrogates"


@dataclass(frozen=True, slots=True)
class Input:
    """A text to embed, with its instruction.

    Attributes:
        text: the text.
        instruction: the text's instruction; "" if it has none.
        keep_end: keep the end of a text that is too long, rather than its beginning; None: as the tokenizer declares.
        max_tokens: maximum tokens of the whole input, if below the model's own limit; None: the model's limit.
    """

    text: str
    instruction: str = ""
    keep_end: bool | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Encoding:
    """One input as token ids, as `Tokenization` returns it.

    Attributes:
        ids: the ids of the whole row (special tokens, template, instruction, text, suffix), 64 bits each.
        pooled: how many of the last positions to pool; 0: return the hidden states of all positions instead.
        truncated: whether part of the text was cut off.
        adapter: the id of the LoRA module to apply to the input, see `models.lora`; 0: no module.
    """

    ids: "array[int]"
    pooled: int
    truncated: bool = False
    adapter: int = 0

    def __len__(self) -> int:
        return len(self.ids)
