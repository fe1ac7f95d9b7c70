"""What requests bring: texts, instructions, token ids, in every form that the surfaces take."""

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictInt,
    StrictStr,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from l2v.models.types import Input, is_unicode

T = TypeVar("T")

# Tags of the unions below stand in pydantic's error locations; the colon keeps them apart from field names.
_TEXT, _PAIR, _OBJECT, _IDS, _ONE, _MANY = ":text", ":pair", ":object", ":ids", ":one", ":many"


def _clean(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "must not contain a NUL character")
    if not is_unicode(text):
        raise PydanticCustomError("surrogate", "must be Unicode text, without lone surrogates")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be empty or blank")
    return text


def _pattern(pattern: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern})


# The patterns say to readers of the OpenAPI document what the validators find out.
Instruction = Annotated[StrictStr, AfterValidator(_clean), _pattern(r"^[^\u0000]*$")]
Text = Annotated[
    StrictStr, AfterValidator(_clean), AfterValidator(_filled), _pattern(r"^[^\u0000]*[^\s\u0000][^\u0000]*$")
]
# The most that `max_inputs` can be.
MAX_INPUTS = 65_536


def _not_too_many(value: Any) -> Any:
    if isinstance(value, list) and len(value) > MAX_INPUTS:
        counts = {"count": len(value), "most": MAX_INPUTS}
        raise PydanticCustomError("too_many", "{count} inputs, at most {most} (max_inputs)", counts)
    return value


# Beyond its limit, and behind its first error, a list is not looked at.
Listed = Annotated[list[T], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), BeforeValidator(_not_too_many)]
PromptName = Annotated[StrictStr, Field(min_length=1, max_length=100)]


class Request(BaseModel):
    """What all requests share: unknown fields are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TextInput(Request):
    """A text and the instruction it goes under."""

    text: Text
    instruction: Instruction | None = None


def _kind(value: Any) -> str | None:
    kinds: dict[type, str] = {str: _TEXT, list: _PAIR, tuple: _PAIR, dict: _OBJECT, TextInput: _OBJECT}
    return kinds.get(type(value))


def _number(value: Any) -> str:
    return _MANY if isinstance(value, list) else _ONE


_Plain = Annotated[Text, Tag(_TEXT)]
_Pair = Annotated[tuple[Instruction, Text], Tag(_PAIR)]
_Object = Annotated[TextInput, Tag(_OBJECT)]


def _of_kind(message: str) -> Discriminator:
    return Discriminator(_kind, custom_error_type="input_type", custom_error_message=message)


_Item = Annotated[
    _Plain | _Pair | _Object, _of_kind('must be a text, ["instruction", "text"] or {"text", "instruction"}')
]
# No pair: a list of two texts is two inputs.
_Single = Annotated[_Plain | _Object, _of_kind('must be a text, {"text", "instruction"}, or a list of inputs')]
Ids = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
Texts = Listed[Text]
Inputs = Annotated[Annotated[_Single, Tag(_ONE)] | Annotated[Listed[_Item], Tag(_MANY)], Discriminator(_number)]


def _text_or_ids(value: Any) -> str | None:
    kinds: dict[type, str] = {str: _TEXT, list: _IDS}
    return kinds.get(type(value))


def _number_of_texts(value: Any) -> str:
    single_ids = isinstance(value, list) and value and isinstance(value[0], int)
    return _ONE if single_ids or not isinstance(value, list) else _MANY


def _number_of_rows(value: Any) -> str:
    return _MANY if isinstance(value, list) and value and isinstance(value[0], list) else _ONE


TextOrTexts = Annotated[Annotated[Text, Tag(_ONE)] | Annotated[Texts, Tag(_MANY)], Discriminator(_number)]
IdRows = Annotated[Annotated[Ids, Tag(_ONE)] | Annotated[Listed[Ids], Tag(_MANY)], Discriminator(_number_of_rows)]

# What OpenAI's clients and those of text-embeddings-inference send: token ids stand where a text may.
_TextOrIds = Annotated[
    Annotated[Text, Tag(_TEXT)] | Annotated[Ids, Tag(_IDS)],
    Discriminator(
        _text_or_ids, custom_error_type="input_type", custom_error_message="must be a text or a list of token ids"
    ),
]
TextsOrIds = Annotated[
    Annotated[_TextOrIds, Tag(_ONE)] | Annotated[Listed[_TextOrIds], Tag(_MANY)],
    Discriminator(_number_of_texts),
]


def read(inputs: Any, instruction: str) -> list[Input]:
    """The inputs of a request as a list; `instruction` is for those that bring none of their own."""
    many = inputs if isinstance(inputs, list) else [inputs]
    return [_read_one(item, instruction) for item in many]


def _read_one(item: str | tuple[str, str] | TextInput, default: str) -> Input:
    if isinstance(item, str):
        return Input(item, default)
    if isinstance(item, TextInput):
        return Input(item.text, default if item.instruction is None else item.instruction)
    return Input(text=item[1], instruction=item[0])


def param_of(location: tuple[int | str, ...]) -> str | None:
    """A pydantic error location as the caller would write it: `inputs[3].text`."""
    path = ""
    pair = False
    for part in location[1:]:
        if part == _TEXT:
            path += ".text" if path.endswith("]") else ""
        elif pair and isinstance(part, int):
            path += (".instruction", ".text")[part] if part < 2 else ""
        elif isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(":"):
            path += f".{part}" if path else part
        pair = part == _PAIR
    return path or None
