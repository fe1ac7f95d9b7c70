"""Requests and responses of the native API: shapes, types, and the limits that need no settings."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from l2v.app.http.schemas.inputs import Inputs, Instruction, PromptName, Request

T = TypeVar("T")


class EmbedRequest(Request):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": ["the cat sits on the mat"], "instruction": "Retrieve semantically similar text:"}]
        }
    )

    inputs: Inputs = Field(
        description='"text" or {"text", "instruction"}, or a list of those and of ["instruction", "text"]'
    )
    instruction: Instruction | None = Field(None, description="For the inputs that bring none of their own")
    prompt_name: PromptName | None = Field(None, description="A named prompt, in place of the instruction")
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

    queries: Inputs = Field(description="As `inputs` of /embed")
    documents: Inputs | None = Field(
        None, description="As `queries`; where absent, the queries are compared with each other"
    )
    query_instruction: Instruction | None = Field(None, description="For the queries that bring none of their own")
    document_instruction: Instruction | None = Field(None, description="For the documents that bring none of their own")
    query_prompt_name: PromptName | None = Field(None, description="A named prompt, in place of query_instruction")
    document_prompt_name: PromptName | None = Field(
        None, description="A named prompt, in place of document_instruction"
    )
    metric: Literal["cosine", "dot"] = Field("cosine", description="dot: of the vectors as they are, not normalised")
    top_k: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Give only the best so many documents of each query, best first"
    )
    truncate: StrictBool = Field(True, description="Shorten texts that are too long, rather than refusing them")


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


class PromptsResponse(BaseModel):
    """Name → instruction."""

    prompts: dict[str, str]
