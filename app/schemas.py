"""Requests and responses of the native API: shapes, types, and the limits that need no settings."""

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
)
from pydantic_core import PydanticCustomError

from models import Input

T = TypeVar("T")

# Tags of the unions below stand in pydantic's error locations; the colon keeps them apart from field names.
_TEXT, _PAIR, _OBJECT, _ONE, _MANY = ":text", ":pair", ":object", ":one", ":many"


def _clean(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "must not contain a NUL character")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("surrogate", "must be Unicode text, without lone surrogates")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be empty or blank")
    return text


Instruction = Annotated[StrictStr, AfterValidator(_clean)]
Text = Annotated[StrictStr, AfterValidator(_clean), AfterValidator(_filled)]


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


_Pair = Annotated[tuple[Instruction, Text], Tag(_PAIR)]
_Object = Annotated[TextInput, Tag(_OBJECT)]
_Item = Annotated[
    Annotated[Text, Tag(_TEXT)] | _Pair | _Object,
    Discriminator(
        _kind,
        custom_error_type="input_type",
        custom_error_message='must be a text, ["instruction", "text"] or {"text", "instruction"}',
    ),
]
Inputs = Annotated[
    Annotated[_Item, Tag(_ONE)] | Annotated[list[_Item], Field(min_length=1), Tag(_MANY)], Discriminator(_number)
]


def read(inputs: Any, instruction: str | None) -> list[Input]:
    """The inputs of a request as a list; `instruction` is for those that bring none of their own."""
    default = instruction or ""
    many = inputs if isinstance(inputs, list) else [inputs]
    return [_read_one(item, default) for item in many]


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


class EmbedRequest(Request):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": ["the cat sits on the mat"], "instruction": "Retrieve semantically similar text:"}]
        }
    )

    inputs: Inputs = Field(
        description='One input or a list: "text", ["instruction", "text"] or {"text", "instruction"}'
    )
    instruction: Instruction | None = Field(None, description="For the inputs that bring none of their own")
    normalize: StrictBool = Field(
        True, description="Scale each vector to length 1; false gives the reference's vectors"
    )
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Keep the first so many dimensions, before normalising"
    )
    truncate: StrictBool = Field(True, description="Shorten texts that are too long, rather than refusing them")
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="base64: each vector as little-endian float32"
    )


class EmbedResponse(BaseModel):
    """One vector for each input, in order."""

    model: str
    dimensions: int
    embeddings: list[list[float]] | list[str]
    tokens: list[int] = Field(description="Tokens of each input, with template and special tokens")
    truncated: list[int] = Field(description="Positions of the inputs that were shortened")


class SimilarityRequest(Request):
    """Queries to compare with documents."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "queries": "where does the cat sit?",
                    "documents": ["the cat sits on the mat", "stocks fell sharply"],
                    "query_instruction": "Given a question, retrieve passages that answer it:",
                }
            ]
        }
    )

    queries: Inputs
    documents: Inputs | None = Field(None, description="Where absent, the queries are compared with each other")
    query_instruction: Instruction | None = None
    document_instruction: Instruction | None = None
    metric: Literal["cosine", "dot"] = Field("cosine", description="dot: of the vectors as they are, not normalised")
    top_k: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Give only the best so many documents of each query, best first"
    )
    truncate: StrictBool = True


class Sides(BaseModel, Generic[T]):
    """One value for each side; no documents where the queries were compared with each other."""

    queries: T
    documents: T | None = None


class Match(BaseModel):
    """A document by its position, and its score."""

    index: int
    score: float


class SimilarityResponse(BaseModel):
    """A row for each query: all scores, or with `top_k` the best matches."""

    model: str
    scores: list[list[float]] | None = None
    results: list[list[Match]] | None = None
    tokens: Sides[list[int]]
    truncated: Sides[list[int]]
