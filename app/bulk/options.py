"""Options of a run: the columns to read, and how to embed the texts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from l2v.app.bulk.errors import UsageError
from l2v.app.engine.output_types import OutputDtype

if TYPE_CHECKING:
    from l2v.models.declaration import Declaration


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the input to read.

    Attributes:
        text: the column with the text to embed.
        instruction: the column with each row's own instruction; None if there is no such column.
        keep: the columns to copy to the output.
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
        instruction: the instruction for rows without an instruction of their own.
        prompt_name: a named prompt of the model or the service, instead of `instruction`.
        dimensions: how many dimensions of each vector to keep; None means the model's default.
        normalize: whether to scale vectors to length 1.
        output_dtype: the type of the numbers.
    """

    instruction: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool = True
    output_dtype: OutputDtype = "float"

    def check(self, declaration: "Declaration", width: int) -> int:
        """Checks that a model has the prompt and the dimensions.

        Args:
            declaration: the model's declaration.
            width: the number of dimensions of the model's vectors.

        Returns:
            The number of leading dimensions to keep.

        Raises:
            UsageError: if the model lacks the prompt or the dimensions; the message names the flag.
        """
        from l2v.app.engine.dimensions import choose_dimensions
        from l2v.app.engine.errors import InvalidError

        prompts = declaration.prompts.value
        if self.prompt_name is not None and self.prompt_name not in prompts:
            names = ", ".join(sorted(prompts)) or "none"
            raise UsageError(f"--prompt-name: the model has no prompt {self.prompt_name}; its prompts: {names}")
        try:
            return choose_dimensions(declaration, width, self.dimensions, self.output_dtype)
        except InvalidError as error:
            flag = "--output-dtype" if error.param == "output_dtype" else "--dimensions"
            raise UsageError(f"{flag}: {error}") from None
