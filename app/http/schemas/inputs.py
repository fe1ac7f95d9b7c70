"""The inputs of requests (texts, instructions, token ids) in every form that the APIs accept."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from l2v.app.engine.output_types import OutputDtype
from l2v.app.http.responses import Encoding
from l2v.app.http.schemas.fields import Strict
from l2v.app.settings import MAX_INPUTS
from l2v.models.types import Input, text_fault

T = TypeVar("T")

# The tags of the unions below appear in pydantic's error locations; the colon distinguishes them from field names.
_TEXT, _PAIR, _OBJECT, _IDS, _ONE, _MANY = ":text", ":pair", ":object", ":ids", ":one", ":many"
_FLAG, _WORD = ":flag", ":word"
# Maximum characters of a field's name in an error.
_MAX_NAME = 100


def _check_text(text: str) -> str:
    if fault := text_fault(text):
        raise ValueError(fault)
    return text


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be empty or blank")
    return text


def _check_count(value: Any) -> Any:
    if isinstance(value, list) and len(value) > MAX_INPUTS:
        counts = {"count": len(value), "limit": MAX_INPUTS}
        raise PydanticCustomError("too_many", "{count} inputs; the maximum is {limit} (max_inputs)", counts)
    return value


def _pattern(pattern: str) -> WithJsonSchema:
    """Documents in OpenAPI what the validators check."""
    return WithJsonSchema({"type": "string", "pattern": pattern})


Instruction = Annotated[StrictStr, AfterValidator(_check_text), _pattern(r"^[^\u0000]*$")]
Text = Annotated[
    StrictStr,
    AfterValidator(_check_text),
    AfterValidator(_check_not_blank),
    _pattern(r"^[^\u0000]*[^\s\u0000][^\u0000]*$"),
]
# Validation stops at the limit, and at the first error.
Listed = Annotated[list[T], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), BeforeValidator(_check_count)]
Dimensions = Annotated[StrictInt, Field(ge=1)]
ModelChoice = Annotated[StrictStr, Field(max_length=200)]
MODEL = "Name of a model that `/v1/models` lists; default: the base. A service with one model accepts any name"
# The engine checks that the model has each id. Checking the lower bound here would double the time of validation.
_Id = Annotated[StrictInt, WithJsonSchema({"type": "integer", "minimum": 0})]
Ids = Annotated[list[_Id], Field(min_length=1, fail_fast=True)]
Texts = Listed[Text]


class TextInput(Strict):
    """A text and its instruction."""

    text: Text = Field(description="The text")
    instruction: Instruction | None = Field(None, description="Its instruction; default: that of the request")


def _by_type(expected: str, **tags: type) -> Discriminator:
    """Chooses the member of a union by the type of the value. `expected` completes "expected …" in error messages."""

    def tag(value: Any) -> str | None:
        return next((f":{name}" for name, kind in tags.items() if isinstance(value, kind)), None)

    return Discriminator(tag, custom_error_type="input_type", custom_error_message=expected)


def _one_or_many(is_many: Any) -> Discriminator:
    return Discriminator(lambda value: _MANY if is_many(value) else _ONE)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def _is_list_of_items(value: Any) -> bool:
    """Whether a value is a list of inputs. A list of integers is not: it is one row of ids."""
    return isinstance(value, list) and not (value and isinstance(value[0], int))


_Plain = Annotated[Text, Tag(_TEXT)]
_Pair = Annotated[tuple[Instruction, Text], Tag(_PAIR)]
_Object = Annotated[TextInput, Tag(_OBJECT)]
_Item = Annotated[
    _Plain | _Pair | _Object,
    _by_type(
        'a text, ["instruction", "text"] or {"text", "instruction"}',
        text=str,
        pair=list | tuple,
        object=dict | TextInput,
    ),
]
# A pair is not allowed here: a list of two texts is two inputs.
_Single = Annotated[
    _Plain | _Object,
    _by_type('a text, {"text", "instruction"}, or an array of inputs', text=str, object=dict | TextInput),
]
Inputs = Annotated[Annotated[_Single, Tag(_ONE)] | Annotated[Listed[_Item], Tag(_MANY)], _one_or_many(_is_list)]
TextOrTexts = Annotated[Annotated[Text, Tag(_ONE)] | Annotated[Texts, Tag(_MANY)], _one_or_many(_is_list)]
IdRows = Annotated[Annotated[Ids, Tag(_ONE)] | Annotated[Listed[Ids], Tag(_MANY)], _one_or_many(_is_list_of_lists)]
# Clients of OpenAI and of text-embeddings-inference may send token ids in place of a text.
_TextOrIds = Annotated[
    _Plain | Annotated[Ids, Tag(_IDS)], _by_type("a text or an array of token ids", text=str, ids=list)
]
TextsOrIds = Annotated[
    Annotated[_TextOrIds, Tag(_ONE)] | Annotated[Listed[_TextOrIds], Tag(_MANY)], _one_or_many(_is_list_of_items)
]

EncodingFormat = Annotated[Encoding, Field(description="base64: the numbers as little-endian bytes, in base64")]
OutputType = Annotated[
    OutputDtype,
    Field(
        description="float: float32. int8: each vector is scaled so that its largest number becomes 127, unless the "
        "model declares another scale. uint8: int8 + 128. ubinary: one bit per dimension (1 if positive), 8 bits in a "
        "byte. binary: ubinary - 128"
    ),
]
Truncate = Annotated[
    Annotated[StrictBool, Tag(_FLAG)] | Annotated[Literal["END", "START", "NONE"], Tag(_WORD)],
    _by_type("true, false, 'END', 'START' or 'NONE'", flag=bool, word=str),
]


def read_inputs(inputs: Any, instruction: str) -> list[Input]:
    """The inputs of a request as a list. Inputs without an instruction of their own get `instruction`."""
    return [_read_input(item, instruction) for item in (inputs if isinstance(inputs, list) else [inputs])]


def _read_input(item: str | tuple[str, str] | TextInput, default: str) -> Input:
    if isinstance(item, str):
        return Input(item, default)
    if isinstance(item, TextInput):
        return Input(item.text, default if item.instruction is None else item.instruction)
    return Input(text=item[1], instruction=item[0])


def param_of(location: tuple[int | str, ...]) -> str | None:
    """Converts the location of pydantic's error to a path in the request, like `inputs[3].text`."""
    path = ""
    in_pair = False
    for part in location:
        if part == _TEXT:
            path += ".text" if path.endswith("]") else ""
        elif in_pair and isinstance(part, int):
            path += (".instruction", ".text")[part] if part < 2 else ""
        elif isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith(":"):
            name = part if len(part) <= _MAX_NAME else f"{part[:_MAX_NAME]}…"
            path += f".{name}" if path else name
        in_pair = part == _PAIR
    return path or None
