"""Requests and responses of the Cohere API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictInt

from l2v.app.engine.output_types import OutputDtype
from l2v.app.http.errors import example
from l2v.app.http.schemas.fields import NoEffect, Rejected, StrictRequest
from l2v.app.http.schemas.inputs import MODEL, Dimensions, ModelChoice, Texts

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
_TEXTS = "Only texts can be embedded: send them as 'texts'"


class CohereRequest(StrictRequest):
    """`POST /v2/embed`."""

    texts: Texts = Field(description="The texts to embed")
    input_type: Literal["search_query", "search_document", "classification", "clustering"] | None = Field(
        None,
        description="Use the prompt of this name (without `search_`) if the model or the service has it; else the "
        "default prompt, if there is one",
    )
    embedding_types: Annotated[list[EmbeddingType], Field(min_length=1, max_length=6)] = Field(
        default=["float"],
        description="The types to return, as in `output_dtype` of /embed; `base64` returns float32 in base64",
    )
    truncate: Literal["END", "START", "NONE"] = Field(
        "END",
        description="Where to cut texts that are too long; NONE rejects them. If absent, as the model's tokenizer "
        "declares",
    )
    output_dimension: Dimensions | None = Field(None, description="Number of leading dimensions to keep")
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Maximum tokens of each text, with template and special tokens"
    )
    model: ModelChoice | None = Field(None, description=MODEL)
    priority: Annotated[Any, NoEffect("all requests have the same priority")] = None
    images: Annotated[None, Rejected(_TEXTS)] = None
    inputs: Annotated[None, Rejected(_TEXTS)] = None

    @property
    def dtypes(self) -> dict[EmbeddingType, OutputDtype]:
        """Maps each requested embedding type to the type of its numbers."""
        return {kind: "float" if kind == "base64" else kind for kind in self.embedding_types}


class CohereEmbeddings(BaseModel):
    """The vectors by type, each in the order of the texts. Types that were not requested are left out."""

    floats: list[list[float]] | None = Field(None, alias="float", description="float32")
    int8: list[list[int]] | None = Field(None, description="From -128 to 127")
    uint8: list[list[int]] | None = Field(None, description="From 0 to 255")
    binary: list[list[int]] | None = Field(None, description="8 dimensions in a number from -128 to 127")
    ubinary: list[list[int]] | None = Field(None, description="8 dimensions in a number from 0 to 255")
    base64: list[str] | None = Field(None, description="float32, little-endian")


class ApiVersion(BaseModel):
    """The version of Cohere's API."""

    version: Literal["2"] = Field("2", description="Always `2`")


class BilledUnits(BaseModel):
    """The tokens of the request."""

    input_tokens: int = Field(description="Number of tokens, including template and special tokens")


class Meta(BaseModel):
    """The version of the API, and the tokens of the request."""

    api_version: ApiVersion = Field(description="The version of Cohere's API")
    billed_units: BilledUnits = Field(description="The tokens of the request")


class CohereResponse(BaseModel):
    """One vector per text and type."""

    model_config = example(
        id="0a53eb18-70e6-4d2c-a3dd-b1e0b5a2f6a4",
        response_type="embeddings_by_type",
        texts=["the cat sits on the mat"],
        embeddings={"int8": [[91, 127, 53]]},
        meta={"api_version": {"version": "2"}, "billed_units": {"input_tokens": 7}},
    )

    id: str = Field(description="An id of this response")
    response_type: Literal["embeddings_by_type"] = Field("embeddings_by_type", description="Always the same")
    texts: list[str] = Field(description="The texts of the request")
    embeddings: CohereEmbeddings = Field(description="The vectors by type")
    meta: Meta = Field(description="The version of the API, and the tokens of the request")


class CohereErrorBody(BaseModel):
    """The body of every error."""

    model_config = example(message="Invalid value for 'texts[0]': must not be empty or blank.")

    message: str = Field(description="What is wrong, and in which field")
