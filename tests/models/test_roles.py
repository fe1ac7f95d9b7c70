"""The roles of a row's tokens."""

import dataclasses

import pytest

from l2v.models import Encoder, Input
from l2v.models.roles import describe
from l2v.models.templates import TEMPLATES


def shown(encoder: Encoder, input_: Input, **changes: object) -> list[tuple[str, str, bool]]:
    """The text of each run of tokens of one role, the role, and whether the run is pooled."""
    tokenization = dataclasses.replace(encoder.tokenization, **changes)  # type: ignore[arg-type]
    (encoding,) = tokenization([input_])
    runs: list[tuple[str, str, bool]] = []
    for token in describe(tokenization, input_, encoding):
        if runs and runs[-1][1:] == (token.role, token.pooled):
            runs[-1] = (runs[-1][0] + token.text, token.role, token.pooled)
        else:
            runs.append((token.text, token.role, token.pooled))
    return runs


def test_special_tokens_template_instruction_and_text(encoder: Encoder) -> None:
    assert shown(encoder, Input("a cat", "Find:"), template=TEMPLATES["inst"]) == [
        ("<s>", "special", False),
        ("[INST] ", "template", False),
        ("Find: ", "instruction", False),
        ("a cat", "text", True),
        (" [/INST]", "template", True),
    ]


@pytest.mark.parametrize("instruction", ["", "Find:"])
def test_instructions_may_be_pooled(encoder: Encoder, instruction: str) -> None:
    runs = shown(encoder, Input("a cat", instruction), skip_instruction=False)
    assert [role for _, role, _ in runs] == ["special", *(["instruction"] if instruction else []), "text"]
    assert all(pooled for *_, pooled in runs)


def test_a_row_that_was_cut_lacks_its_suffix(encoder: Encoder) -> None:
    input_ = Input("a long text", max_tokens=12)
    assert shown(encoder, input_, template=TEMPLATES["inst"])[-1] == ("a lo", "text", True)
