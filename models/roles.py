"""The role of each token of an encoded input (special token, template, instruction, text), and whether it is pooled."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from l2v.models.tokenization import Tokenization
from l2v.models.trimming import token_ids
from l2v.models.types import Encoding, Input

Role = Literal["special", "template", "instruction", "text"]


class Token(NamedTuple):
    """A token of an encoded input.

    Attributes:
        id: the token's id.
        text: the token's text; "\ufffd" for a part of a character.
        role: the part of the input that the token belongs to.
        pooled: whether the token is pooled.
    """

    id: int
    text: str
    role: Role
    pooled: bool


def describe(tokenization: Tokenization, input_: Input, encoding: Encoding) -> Iterator[Token]:
    """Yields the tokens of an encoded input, in order."""
    ids = encoding.ids.tolist()
    end, first_pooled = len(ids) - tokenization.trailing, len(ids) - encoding.pooled
    parts = [tokenization.template.prefix, tokenization.template.suffix + tokenization.eos, tokenization.head(input_)]
    prefix, suffix, head = token_ids(tokenization.tokenizer, parts)
    start = tokenization.leading
    # An input that was cut may lack the beginning of the prefix or the end of the suffix.
    after_prefix = start + (len(prefix) if ids[start : start + len(prefix)] == prefix else 0)
    before_suffix = end - (len(suffix) if suffix and ids[end - len(suffix) : end] == suffix else 0)
    text = first_pooled if tokenization.skip_instruction else start + len(head)
    texts = tokenization.tokenizer.decode_batch([[id_] for id_ in ids], skip_special_tokens=False)
    for position, (id_, shown) in enumerate(zip(ids, texts, strict=True)):
        role: Role
        if not start <= position < end:
            role = "special"
        elif position < after_prefix or position >= before_suffix:
            role = "template"
        else:
            role = "instruction" if position < text else "text"
        # Decoders of SentencePiece models drop the space before the first token.
        space = str(tokenization.tokenizer.id_to_token(id_)).startswith("▁") and not shown.startswith(" ")
        yield Token(id_, f" {shown}" if space else shown, role, position >= first_pooled)
