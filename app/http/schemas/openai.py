"""Requests and responses of the OpenAI surface, as the OpenAI API has them, with our extensions."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from l2v.app.http.schemas.inputs import Instruction, PromptName, Request, TextsOrIds


class EmbeddingsRequest(Request):
    """`POST /v1/embeddings`; the last three fields are ours, for `extra_body`."""

    input: TextsOrIds
    model: StrictStr | None = Field(None, description="Ignored: one model is served")
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = Field(
        "float", description="null: `float`, as some clients say"
    )
    user: StrictStr | None = Field(None, description="Ignored")
    instruction: Instruction | None = None
    prompt_name: PromptName | None = None
    truncate: StrictBool = Field(False, description="Shorten what is too long, rather than refusing it as OpenAI does")


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens of the request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """One vector for each input, in order."""

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
    """All served models, which is one."""

    object: Literal["list"] = "list"
    data: list[Model]
