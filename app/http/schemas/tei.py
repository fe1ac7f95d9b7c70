"""Requests and responses of the TEI surface. Unknown fields are ignored as in TEI, since some clients send them."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, Discriminator, Field, StrictBool, Tag

from l2v.app.http.schemas.fields import Request
from l2v.app.http.schemas.inputs import Dimensions, IdRows, Text, TextOrTexts, Texts, TextsOrIds
from l2v.app.http.schemas.openai import EmbeddingsFields
from l2v.app.settings import PromptName


class Options(Request):
    """How to truncate texts, and which named prompt to use."""

    truncate: StrictBool | None = Field(None, description="Default: true")
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: PromptName | None = None

    @property
    def keep_end(self) -> bool:
        return self.truncation_direction.lower() == "left"


class OpenaiRequest(EmbeddingsFields):
    """An OpenAI request as TEI handles it: texts that are too long are truncated."""

    truncates_by_default: ClassVar[bool] = True


class EmbedAllRequest(Options):
    """Texts whose token states are requested."""

    inputs: TextsOrIds


class TeiEmbedRequest(EmbedAllRequest):
    """Texts to embed."""

    normalize: StrictBool = True
    dimensions: Dimensions | None = None


class Sentences(Request):
    """A sentence, and the sentences to compare it with."""

    source_sentence: Text
    sentences: Texts


class TeiSimilarityRequest(Request):
    """A comparison of sentences."""

    inputs: Sentences
    parameters: Options | None = None


def _task(body: Any) -> str:
    inputs = body.get("inputs") if isinstance(body, dict) else getattr(body, "inputs", None)
    return ":similarity" if isinstance(inputs, dict | Sentences) else ":embed"


# Clients of Hugging Face send every task to one address, and the task shows by its inputs.
TaskRequest = Annotated[
    Annotated[TeiEmbedRequest, Tag(":embed")] | Annotated[TeiSimilarityRequest, Tag(":similarity")],
    Discriminator(_task),
]


class TokenizeRequest(Request):
    """Texts to tokenize."""

    inputs: TextOrTexts
    add_special_tokens: StrictBool = True
    prompt_name: PromptName | None = None


class DecodeRequest(Request):
    """Token ids to decode."""

    ids: IdRows
    skip_special_tokens: StrictBool = True


class Token(BaseModel):
    """A token and its position in the text, in characters."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def render(tokens: Iterator[tuple[Any, ...]]) -> list[bytes]:
    """Writes the tokens of a text as JSON, in parts, since their objects take ten times the memory."""
    names = tuple(Token.model_fields)
    parts: list[bytes] = []
    while part := [dict(zip(names, token, strict=True)) for token in islice(tokens, 1024)]:
        parts.append((b"," if parts else b"[") + orjson.dumps(part)[1:-1])
    return [*parts, b"]"] if parts else [b"[]"]


class TeiOpenaiErrorBody(BaseModel):
    """The body of every error of /tei/v1/embeddings."""

    message: str
    code: int
    type: str


class TeiErrorBody(BaseModel):
    """The body of every other error under /tei."""

    error: str
    error_type: str
