"""Named prompts: instructions that callers choose by name, and the defaults for queries and documents."""

from dataclasses import dataclass

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.inputs import DefaultInstruction
from l2v.models import Encoder, Input
from l2v.models.errors import InputError, ModelError


@dataclass(frozen=True, slots=True)
class Prompts:
    """The named prompts. `query` and `document` are the defaults of `/similarity`."""

    by_name: dict[str, str]

    def check(self, encoder: Encoder) -> None:
        """Raises `ModelError` for a prompt that leaves no room for a text."""
        for name, prompt in self.by_name.items():
            try:
                encoder.tokenize([Input("a", prompt)])
            except InputError as error:
                raise ModelError(f"the prompt {name}: {error}") from error

    def select(self, instruction: str | None, name: str | None, default: str = "") -> DefaultInstruction:
        """The instruction of the request, or its named prompt, or the default prompt, or none.

        Args:
            instruction: the request's field `instruction` or `{default}_instruction`.
            name: the request's field `prompt_name` or `{default}_prompt_name`.
            default: `query` or `document` if the request has a field for each.

        Raises:
            InvalidError: both are given, or no prompt has this name.
        """
        prefix = f"{default}_" if default else ""
        if name is None:
            text = self.by_name.get(default, "") if instruction is None else instruction
            return DefaultInstruction(text, f"{prefix}instruction")
        param = f"{prefix}prompt_name"
        if instruction is not None:
            raise InvalidError("cannot be combined with an instruction", param)
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise InvalidError(f"there is no such prompt; known prompts: {known}", param)
        return DefaultInstruction(self.by_name[name], param)
