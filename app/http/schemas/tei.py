"""Requests and responses of the TEI surface, as text-embeddings-inference has them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from l2v.app.http.schemas.inputs import IdRows, PromptName, Text, TextOrTexts, Texts, TextsOrIds
from l2v.app.http.schemas.openai import EmbeddingsRequest


class TeiRequest(BaseModel):
    """Unknown fields are ignored here, as TEI does, and clients send some."""

    model_config = ConfigDict(frozen=True)


class Options(TeiRequest):
    """How texts are shortened, and which named prompt goes before them."""

    truncate: StrictBool | None = Field(None, description="Where unset, true")
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: PromptName | None = None


class OpenaiRequest(EmbeddingsRequest):
    """OpenAI's request as TEI takes it: it shortens what is too long."""

    model_config = ConfigDict(extra="ignore")

    truncate: StrictBool = True


class EmbedAllRequest(Options):
    """Texts whose every token is wanted."""

    inputs: TextsOrIds


class TeiEmbedRequest(EmbedAllRequest):
    """Texts to embed."""

    normalize: StrictBool = True
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None


class Sentences(TeiRequest):
    """One sentence and those to compare it with."""

    source_sentence: Text
    sentences: Texts


class TeiSimilarityRequest(TeiRequest):
    """A comparison."""

    inputs: Sentences
    parameters: Options | None = None


class TokenizeRequest(TeiRequest):
    """Texts to see as tokens."""

    inputs: TextOrTexts
    add_special_tokens: StrictBool = True
    prompt_name: PromptName | None = None


class DecodeRequest(TeiRequest):
    """Token ids to see as texts."""

    ids: IdRows
    skip_special_tokens: StrictBool = True


class Token(BaseModel):
    """A token and where in the text it stands, in characters."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class TeiOpenaiErrorBody(BaseModel):
    """The body of every error of /tei/v1/embeddings."""

    message: str
    code: int
    type: str


class TeiErrorBody(BaseModel):
    """The body of every other error under /tei."""

    error: str
    error_type: str
