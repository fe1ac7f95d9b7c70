"""Named prompts: instructions that callers select by name, and the defaults for inputs without an instruction."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.inputs import DefaultInstruction
from l2v.app.engine.profile import Profile
from l2v.models import Input
from l2v.models.errors import InputError, ModelError


@dataclass(frozen=True, slots=True)
class Prompts:
    """The named prompts. `query` and `document` are the defaults of `/similarity`.

    Attributes:
        by_name: the prompts.
        default_name: the name of the prompt for inputs that select no other prompt; None if there is no such prompt.
    """

    by_name: Mapping[str, str] = field(default_factory=dict)
    default_name: str | None = None

    @classmethod
    def of(cls, encoder: Profile, configured: Mapping[str, str] | None = None) -> "Prompts":
        """The prompts that the model declares, and the configured prompts, which replace prompts of the same name.

        Raises:
            ModelError: if a configured prompt, or the model's default prompt, leaves no tokens for a text.
        """
        declared, configured = encoder.declaration, configured or {}
        prompts = cls({**declared.prompts.value, **configured}, declared.default_prompt_name.value)
        for name in dict.fromkeys([*configured, *([prompts.default_name] if prompts.default_name else [])]):
            try:
                encoder.tokenize([Input("a", prompts.by_name[name])])
            except InputError as error:
                raise ModelError(f"the prompt {name}: {error}") from error
        return prompts

    def default(self, side: str = "") -> str:
        """The instruction for an input if the request has neither an instruction nor a prompt name.

        Args:
            side: `query` or `document` if the input is known to be one of the two.
        """
        return next((self.by_name[name] for name in (side, self.default_name) if name and name in self.by_name), "")

    def select(self, instruction: str | None, name: str | None, side: str = "") -> DefaultInstruction:
        """The request's instruction or named prompt, else the default instruction, else "".

        Args:
            instruction: the request's field `instruction` or `{side}_instruction`.
            name: the request's field `prompt_name` or `{side}_prompt_name`.
            side: `query` or `document` if the request has separate fields for queries and documents.

        Raises:
            InvalidError: an instruction and a name are given, or no prompt has the name.
        """
        prefix = f"{side}_" if side else ""
        if name is None:
            text = self.default(side) if instruction is None else instruction
            return DefaultInstruction(text, f"{prefix}instruction")
        param = f"{prefix}prompt_name"
        if instruction is not None:
            raise InvalidError("cannot be combined with an instruction", param)
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise InvalidError(f"there is no such prompt; known prompts: {known}", param)
        return DefaultInstruction(self.by_name[name], param)
