"""Named prompts: instructions that callers use by name, and the defaults of the two sides."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter, ValidationError

from l2v.app.http.errors import InvalidError
from l2v.app.http.schemas.inputs import Instruction, PromptName
from l2v.models.errors import InputError, ModelError
from l2v.models.types import Input

if TYPE_CHECKING:
    from l2v.models import Encoder

# The names under which the two sides of a comparison find their default.
QUERY, DOCUMENT = "query", "document"
_PROMPTS = TypeAdapter(dict[PromptName, Instruction])


class Shared(NamedTuple):
    """The instruction of those inputs of a request that bring none of their own.

    Attributes:
        text: "" for none.
        param: the request's field that it came by.
    """

    text: str
    param: str


@dataclass(frozen=True, slots=True)
class Prompts:
    """The instructions that have names."""

    by_name: dict[str, str]

    @classmethod
    def read(cls, path: Path | None, query: str, document: str) -> "Prompts":
        """The prompts of a JSON file {name: instruction}; `query` and `document`, where given, win over its own.

        Raises:
            ValueError: if the file cannot be read or is no such object.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8")) if path else {}
            prompts = _PROMPTS.validate_python(content)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror})") from error
        except ValueError as error:
            why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "no JSON"
            raise ValueError(f"{path} is not a JSON object of names and instructions ({why})") from error
        try:
            own = _PROMPTS.validate_python(
                {name: text for name, text in ((QUERY, query), (DOCUMENT, document)) if text}
            )
        except ValidationError as error:
            (problem, *_) = error.errors()
            raise ValueError(f"{problem['loc'][0]}_instruction {problem['msg']}") from error
        return cls(prompts | own)

    def check(self, encoder: "Encoder") -> None:
        """Raises `ModelError` for one that leaves no room for a text."""
        for name, prompt in self.by_name.items():
            try:
                encoder.tokenize([Input("a", prompt)])
            except InputError as error:
                raise ModelError(f"the prompt {name}: {error}") from error

    def instruction(self, given: str | None, name: str | None, side: str = "") -> Shared:
        """What goes before a text: the instruction given, or the prompt named, or that of the side, or nothing.

        Args:
            given: the request's field `instruction`, or `{side}_instruction`.
            name: its field `prompt_name`, or `{side}_prompt_name`.
            side: `QUERY` or `DOCUMENT` where a request has these two.

        Raises:
            InvalidError: if both are given, or the name is unknown.
        """
        prefix = f"{side}_" if side else ""
        if name is None:
            return Shared(self.by_name.get(side, "") if given is None else given, f"{prefix}instruction")
        param = f"{prefix}prompt_name"
        if given is not None:
            raise InvalidError("name a prompt or give an instruction, not both", param)
        if name not in self.by_name:
            known = ", ".join(sorted(self.by_name)) or "none"
            raise InvalidError(f"there is no such prompt; known prompts: {known}", param)
        return Shared(self.by_name[name], param)
