"""Requests and responses of the Cohere surface."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StrictInt

from l2v.app.engine.output_types import OutputDtype
from l2v.app.http.schemas.fields import NoEffect, Rejected, StrictRequest
from l2v.app.http.schemas.inputs import MODEL, Dimensions, ModelChoice, Texts

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
_TEXTS = "Only texts can be embedded: send them as 'texts'"


class CohereRequest(StrictRequest):
    """`POST /v2/embed`."""

    texts: Texts = Field(description="The texts to embed")
    input_type: Literal["search_query", "search_document", "classification", "clustering"] | None = Field(
        None,
        description="Use the prompt `query` or `document`, or the one named `classification` or `clustering`, if the "
        "model or the service has it; else the default prompt, if there is one",
    )
    embedding_types: Annotated[list[EmbeddingType], Field(min_length=1, max_length=6)] = Field(
        default=["float"], description="The types to return, as in `output_dtype` of /embed; base64: of float32"
    )
    truncate: Literal["END", "START", "NONE"] = Field(
        "END", description="What to cut off texts that are too long; NONE rejects them"
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
        """The types of the numbers, by the requested types."""
        return {kind: "float" if kind == "base64" else kind for kind in self.embedding_types}


class CohereEmbeddings(BaseModel):
    """The vectors by type, each in the order of the texts; null for types that were not requested."""

    floats: list[list[float]] | None = Field(None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class ApiVersion(BaseModel):
    """The version of Cohere's API."""

    version: Literal["2"] = "2"


class BilledUnits(BaseModel):
    """The tokens of the request."""

    input_tokens: int


class Meta(BaseModel):
    """The version of the API, and the tokens of the request."""

    api_version: ApiVersion
    billed_units: BilledUnits


class CohereResponse(BaseModel):
    """One vector per text and type."""

    id: str
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
    texts: list[str]
    embeddings: CohereEmbeddings
    meta: Meta


class CohereErrorBody(BaseModel):
    """The body of every error."""

    message: str
