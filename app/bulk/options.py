"""Options of a run: the columns to read, and how to embed them."""

from dataclasses import dataclass

from l2v.app.engine.output_types import OutputDtype


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the input to read.

    Attributes:
        text: the text to embed.
        instruction: each row's own instruction; None if there is no such column.
        keep: columns to copy to the output.
    """

    text: str = "text"
    instruction: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All columns to read, without duplicates."""
        return list(dict.fromkeys([self.text, *([self.instruction] if self.instruction else []), *self.keep]))


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How to embed rows.

    Attributes:
        instruction: for rows without their own.
        prompt_name: a named prompt of the model or the service, instead of `instruction`.
        dimensions: how many dimensions of each vector to keep; None: the model's default.
        normalize: whether to scale vectors to length 1.
        output_dtype: the type of the numbers.
    """

    instruction: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    output_dtype: OutputDtype = "float"
