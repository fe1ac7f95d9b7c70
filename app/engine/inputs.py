"""The inputs of a request, and their embeddings, grouped by the field that they came in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from l2v.app.engine.vectors import Vectors
from l2v.models import Input

# The typical ratio in English prose.
_CHARACTERS_PER_TOKEN = 4


class DefaultInstruction(NamedTuple):
    """The instruction for inputs without an instruction of their own.

    Attributes:
        text: the instruction; "" for none.
        param: the field of the request that the instruction came from.
    """

    text: str
    param: str


@dataclass(frozen=True, slots=True)
class InputGroup:
    """The inputs of one field of a request.

    Attributes:
        name: the field's name.
        inputs: the inputs, at least one.
        instruction: the default instruction of these inputs.
        single: whether the field held one input rather than a list.
    """

    name: str
    inputs: Sequence[Input]
    instruction: DefaultInstruction
    single: bool = False

    def param(self, index: int, field: str) -> str:
        """The path of an input's `text` or `instruction` in the request, like `inputs[3].text`.

        For the default instruction, this is the field that it came from.
        """
        if field == "instruction" and self.inputs[index].instruction == self.instruction.text:
            return self.instruction.param
        if self.single:
            return self.name if field == "text" else f"{self.name}.{field}"
        return f"{self.name}[{index}].{field}"


@dataclass(frozen=True, slots=True)
class EmbeddedGroup:
    """The embeddings of one input group.

    Attributes:
        rows: one float32 array per input, not normalized: a vector [d], or the states of all tokens [tokens, d].
        tokens: the number of tokens of each input, with template and special tokens.
        truncated: the positions of the inputs that were truncated.
    """

    rows: Sequence[Vectors]
    tokens: list[int]
    truncated: list[int]


def estimate_tokens(groups: Sequence[InputGroup], max_length: int) -> int:
    """Estimates the total number of tokens from the inputs' characters, counting at most `max_length` per input."""
    characters = (len(input_.text) + len(input_.instruction) for group in groups for input_ in group.inputs)
    return sum(min(max_length, 1 + length // _CHARACTERS_PER_TOKEN) for length in characters)


def param_at(groups: Sequence[InputGroup], position: int, field: str) -> str:
    """The path of an input's `text` or `instruction` in the request. `position` counts the inputs of all groups."""
    for group in groups:
        if position < len(group.inputs):
            return group.param(position, field)
        position -= len(group.inputs)
    raise AssertionError("no such input")
