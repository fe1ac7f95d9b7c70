"""Requests and responses of the TEI surface."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from l2v.app.http.schemas.inputs import Dimensions, IdRows, Text, TextOrTexts, Texts, TextsOrIds
from l2v.app.http.schemas.openai import EmbeddingsRequest
from l2v.app.settings import PromptName


class TeiRequest(BaseModel):
    """The base of TEI's requests. Unknown fields are ignored as in TEI, since some clients send them."""

    model_config = ConfigDict(frozen=True)


class Options(TeiRequest):
    """How to truncate texts, and which named prompt to use."""

    truncate: StrictBool | None = Field(None, description="Default: true")
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: PromptName | None = None

    @property
    def keep_end(self) -> bool:
        return self.truncation_direction.lower() == "left"


class OpenaiRequest(EmbeddingsRequest):
    """An OpenAI request as TEI handles it: texts that are too long are truncated."""

    model_config = ConfigDict(extra="ignore")

    truncate: StrictBool = True


class EmbedAllRequest(Options):
    """Texts whose token states are requested."""

    inputs: TextsOrIds


class TeiEmbedRequest(EmbedAllRequest):
    """Texts to embed."""

    normalize: StrictBool = True
    dimensions: Dimensions | None = None


class Sentences(TeiRequest):
    """A sentence, and the sentences to compare it with."""

    source_sentence: Text
    sentences: Texts


class TeiSimilarityRequest(TeiRequest):
    """A comparison of sentences."""

    inputs: Sentences
    parameters: Options | None = None


class TokenizeRequest(TeiRequest):
    """Texts to tokenize."""

    inputs: TextOrTexts
    add_special_tokens: StrictBool = True
    prompt_name: PromptName | None = None


class DecodeRequest(TeiRequest):
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


class TeiOpenaiErrorBody(BaseModel):
    """The body of every error of /tei/v1/embeddings."""

    message: str
    code: int
    type: str


class TeiErrorBody(BaseModel):
    """The body of every other error under /tei."""

    error: str
    error_type: str
