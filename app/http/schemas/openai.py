"""Requests and responses of the OpenAI surface, with our extensions."""

from typing import Literal

from pydantic import BaseModel, Field, StrictBool, StrictStr

from l2v.app.http.schemas.inputs import Dimensions, Instruction, Request, TextsOrIds
from l2v.app.settings import PromptName


class EmbeddingsRequest(Request):
    """`POST /v1/embeddings`. The last three fields are extensions; the OpenAI client sends them as `extra_body`."""

    input: TextsOrIds
    model: StrictStr | None = Field(None, description="Ignored: the service serves one model")
    dimensions: Dimensions | None = None
    encoding_format: Literal["float", "base64"] | None = Field("float", description="null means `float`")
    user: StrictStr | None = Field(None, description="Ignored")
    instruction: Instruction | None = None
    prompt_name: PromptName | None = None
    truncate: StrictBool = Field(False, description="Truncate texts that are too long; OpenAI rejects them")


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """The tokens of the request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """One vector per input, in order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """The served model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelsResponse(BaseModel):
    """The list of served models."""

    object: Literal["list"] = "list"
    data: list[Model]
