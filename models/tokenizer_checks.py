"""Checks that a tokenizer tells texts apart and belongs to its model."""

from itertools import combinations

from tokenizers import Tokenizer

from l2v.models.errors import ModelError, SourceError

# Plain English and digits: every tokenizer of a decoder knows these characters.
_PROBES = ("the cat sits on the mat", "a dog runs in the park", "Stocks fell sharply", "42", "7")
_REMEDY = "its vocabulary is incomplete, so replace its files with those that belong to the model"


def check_texts(name: str, tokenizer: Tokenizer) -> None:
    """Checks that every text has tokens, and that different texts have different tokens.

    Raises:
        SourceError: if a text has no tokens, or two texts have the same tokens.
    """
    rows = {text: tokenizer.encode(text, add_special_tokens=False).ids for text in _PROBES}
    for text, ids in rows.items():
        if not ids:
            raise SourceError(f"the tokenizer of {name} finds no token in the text {text!r}: {_REMEDY}")
    for one, other in combinations(rows, 2):
        if rows[one] == rows[other]:
            raise SourceError(f"the tokenizer of {name} gives the texts {one!r} and {other!r} the same ids: {_REMEDY}")


def check_vocabulary(name: str, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Checks that the model has an embedding for every token.

    Raises:
        ModelError: if a token has no embedding.
    """
    beyond = {index: token for token, index in tokenizer.get_vocab().items() if index >= vocab_size}
    if beyond:
        raise ModelError(
            f"the tokenizer of {name} does not belong to the model: {len(beyond)} of its tokens, for example "
            f"{beyond[min(beyond)]} with id {min(beyond)}, lie beyond the model's vocabulary of {vocab_size}"
        )
