"""What goes through the service for a request: a list of inputs under its name, and what comes of it."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from l2v.app.engine.jobs import Vectors
from l2v.app.engine.prompts import Shared
from l2v.app.http.errors import TooLargeError
from l2v.models import Encoding, Input

# Of English prose.
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Side:
    """One list of inputs of a request.

    Attributes:
        name: of the field that it came by.
        inputs: at least one.
        shared: the instruction of those that brought none of their own.
        single: whether the field held one input in place of a list.
    """

    name: str
    inputs: Sequence[Input]
    shared: Shared
    single: bool = False

    def param(self, index: int, field: str) -> str:
        """What the caller calls the `text` or the `instruction` of an input."""
        if field == "instruction" and self.inputs[index].instruction == self.shared.text:
            return self.shared.param
        if self.single:
            return self.name if field == "text" else f"{self.name}.{field}"
        return f"{self.name}[{index}].{field}"


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of one side.

    Attributes:
        rows: one float32 array an input, not normalised: its vector [d], or the states of all its tokens [tokens, d].
        tokens: the length of each row of tokens.
        truncated: the positions of the inputs that were shortened.
    """

    rows: list[Vectors]
    tokens: list[int]
    truncated: list[int]

    @property
    def numbers(self) -> int:
        """How many the rows have in all."""
        return sum(row.size for row in self.rows)


def about_tokens(sides: Sequence[Side], max_length: int = sys.maxsize) -> int:
    """How many tokens the inputs will have, roughly: to go by until they are tokenised, and cut to `max_length`."""
    characters = (len(input_.text) + len(input_.instruction) for side in sides for input_ in side.inputs)
    return sum(min(max_length, 1 + length // _CHARACTERS_PER_TOKEN) for length in characters)


def param_at(sides: Sequence[Side], place: int) -> str:
    """Which input of the request stands at a place of its job."""
    for side in sides:
        if place < len(side.inputs):
            return side.param(place, "text")
        place -= len(side.inputs)
    raise AssertionError("no such input")


def unpooled(encodings: Sequence[Sequence[Encoding]], most: int, param: str) -> list[list[Encoding]]:
    """A request's encodings with the states of all their tokens asked for: so many that it must keep to one batch.

    Raises:
        TooLargeError: if they have more than `most` tokens.
    """
    if (tokens := sum(len(encoding) for side in encodings for encoding in side)) > most:
        raise TooLargeError(f"{tokens} tokens, at most {most} where each gives a vector (max_batch_tokens)", param)
    return [[replace(encoding, pooled=0) for encoding in side] for side in encodings]


def split(encodings: Sequence[Sequence[Encoding]], rows: list[Vectors]) -> list[Embedded]:
    """What came of a job's encodings, by the sides that they are of."""
    embedded, start = [], 0
    for side in encodings:
        cut = [index for index, encoding in enumerate(side) if encoding.truncated]
        embedded.append(Embedded(rows[start : start + len(side)], [len(encoding) for encoding in side], cut))
        start += len(side)
    return embedded
