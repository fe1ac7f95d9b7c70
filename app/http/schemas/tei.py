"""Requests and responses of the TEI API. Unknown fields are ignored as in TEI, since some clients send them."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, StrictBool, Tag

from l2v.app.engine.output_types import OutputDtype
from l2v.app.http.errors import example
from l2v.app.http.responses import Encoding
from l2v.app.http.schemas.fields import Request
from l2v.app.http.schemas.inputs import Dimensions, IdRows, Text, TextOrTexts, Texts, TextsOrIds
from l2v.app.http.schemas.openai import EmbeddingsFields
from l2v.app.settings import PromptName

# TEI takes `Left` and `Right` too, and generated clients send these.
Direction = Annotated[
    Literal["left", "right"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]


class Options(Request):
    """How to truncate texts, and which named prompt to use."""

    truncate: StrictBool | None = Field(
        None, description="Truncate texts that are too long instead of rejecting them; default: true"
    )
    truncation_direction: Direction = Field(
        "right",
        description="Side on which texts are truncated, in upper or lower case; if absent, as the model's tokenizer "
        "declares",
    )
    prompt_name: PromptName | None = Field(None, description="Named prompt to use as the instruction")

    @property
    def truncates(self) -> bool:
        """Whether texts that are too long are truncated rather than rejected."""
        return self.truncate is not False

    @property
    def keep_end(self) -> bool | None:
        """Whether truncated texts keep their end; None if the request does not say."""
        return self.truncation_direction == "left" if "truncation_direction" in self.model_fields_set else None


class OpenaiRequest(EmbeddingsFields):
    """An OpenAI request as TEI handles it: texts that are too long are truncated."""

    truncates_by_default: ClassVar[bool] = True


class EmbedAllRequest(Options):
    """Texts whose token states are requested."""

    inputs: TextsOrIds = Field(description="A text, a list of token ids, or a list of either")


class TeiEmbedRequest(EmbedAllRequest):
    """Texts to embed."""

    encoding_format: ClassVar[Encoding] = "float"
    output_dtype: ClassVar[OutputDtype] = "float"

    normalize: StrictBool = Field(True, description="Scale each vector to length 1")
    dimensions: Dimensions | None = Field(None, description="Number of leading dimensions to keep")


class Sentences(Request):
    """A sentence, and the sentences to compare it with."""

    source_sentence: Text = Field(description="The sentence to compare with the others")
    sentences: Texts = Field(description="The others")


class TeiSimilarityRequest(Request):
    """A comparison of sentences."""

    inputs: Sentences = Field(description="The sentences")
    parameters: Options | None = Field(None, description="How to truncate, and a named prompt for all sentences")


def _task(body: Any) -> str:
    inputs = body.get("inputs") if isinstance(body, dict) else getattr(body, "inputs", None)
    return ":similarity" if isinstance(inputs, dict | Sentences) else ":embed"


# Hugging Face's clients send every task to one address; the form of the inputs shows which task it is.
TaskRequest = Annotated[
    Annotated[TeiEmbedRequest, Tag(":embed")] | Annotated[TeiSimilarityRequest, Tag(":similarity")],
    Discriminator(_task),
]


class TeiTokenizeRequest(Request):
    """Texts to tokenize."""

    inputs: TextOrTexts = Field(description="A text, or a list of texts")
    add_special_tokens: StrictBool = Field(True, description="Include the special tokens")
    prompt_name: PromptName | None = Field(None, description="Named prompt to put before each text")


class DecodeRequest(Request):
    """Token ids to decode."""

    ids: IdRows = Field(description="Token ids of a text, or a list of such lists")
    skip_special_tokens: StrictBool = Field(True, description="Leave special tokens out of the texts")


class Token(BaseModel):
    """A token and its position in the text, in characters."""

    id: int = Field(description="Its id")
    text: str = Field(description="Its text")
    special: bool = Field(description="Whether it is a special token")
    start: int | None = Field(description="Where it starts in the text; null for a special token")
    stop: int | None = Field(description="Where it ends")


def render(tokens: Iterator[tuple[Any, ...]]) -> list[bytes]:
    """Writes the tokens of a text as JSON, part by part, since dicts of all tokens take ten times the memory."""
    names = tuple(Token.model_fields)
    parts: list[bytes] = []
    while part := [dict(zip(names, token, strict=True)) for token in islice(tokens, 1024)]:
        parts.append((b"," if parts else b"[") + orjson.dumps(part)[1:-1])
    return [*parts, b"]"] if parts else [b"[]"]


class TeiOpenaiErrorBody(BaseModel):
    """The body of every error of /tei/v1/embeddings."""

    message: str = Field(description="What is wrong, and in which field")
    code: int = Field(description="The status")
    type: str = Field(description="The kind of error; see the table of errors")


class TeiErrorBody(BaseModel):
    """The body of every other error under /tei."""

    model_config = example(error="Invalid value for 'inputs': must not be empty or blank.", error_type="Empty")

    error: str = Field(description="What is wrong, and in which field")
    error_type: str = Field(description="The kind of error; see the table of errors")


class EmbeddingType(BaseModel):
    """How the model makes vectors."""

    pooling: str = Field(description="The pooling mode")


class ModelType(BaseModel):
    """What the model is for."""

    embedding: EmbeddingType = Field(description="It makes embeddings")


class TeiInfo(BaseModel):
    """The served model, in TEI's terms."""

    model_config = example(
        model_id="demo",
        model_sha=None,
        model_dtype="float32",
        model_type={"embedding": {"pooling": "mean"}},
        max_concurrent_requests=512,
        max_input_length=512,
        max_batch_tokens=4096,
        max_batch_requests=None,
        max_client_batch_size=2048,
        auto_truncate=True,
        tokenization_workers=2,
        version="0.2.0",
        sha=None,
        docker_label=None,
    )

    model_id: str = Field(description="Its name")
    model_sha: str | None = Field(description="Its revision on the Hub")
    model_dtype: str = Field(description="The dtype of its weights")
    model_type: ModelType = Field(description="What it is for")
    max_concurrent_requests: int = Field(description="Maximum requests in progress")
    max_input_length: int = Field(description="Maximum tokens of an input")
    max_batch_tokens: int = Field(description="Token budget of one forward pass")
    max_batch_requests: int | None = Field(description="Always null: only tokens are limited")
    max_client_batch_size: int = Field(description="Maximum inputs per request")
    auto_truncate: bool = Field(description="Whether texts that are too long are truncated by default")
    tokenization_workers: int = Field(description="Number of threads that tokenize")
    version: str = Field(description="The version of l2v")
    sha: str | None = Field(description="Always null")
    docker_label: str | None = Field(description="Always null")
