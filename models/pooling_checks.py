"""Checks that the pooling suits the tokenizer and the attention. Imports no torch."""

from l2v.models.declaration import Declaration
from l2v.models.errors import ModelError, UnsupportedModelError
from l2v.models.tokenization import Tokenization


def check_pooling(tokenization: Tokenization, declared: Declaration) -> None:
    """Refuses `bos_token` if the beginning token is missing or its state is always the same.

    LLM2Vec's semantics need a tokenizer that adds a beginning token. With causal attention, that token attends only to
    itself, so its state is the same for every text.
    """
    if declared.pooling.value != "bos_token":
        return
    leading = tokenization.leading
    if leading == 0 and declared.semantics.value == "llm2vec":
        raise ModelError("pooling bos_token requires a beginning token, which the tokenizer lacks: use another pooling")
    if leading and declared.causal:
        raise UnsupportedModelError(
            f"pooling {declared.pooling.value} ({declared.pooling.origin}) with causal attention "
            f"({declared.attention.origin}) gives every text the same vector, since the beginning token attends "
            "to nothing else: set attention or pooling"
        )
