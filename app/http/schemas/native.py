"""Requests and responses of the native API."""

from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from l2v.app.http.schemas.fields import StrictRequest
from l2v.app.http.schemas.inputs import MODEL, Dimensions, EncodingFormat, Inputs, Instruction, ModelChoice, OutputType
from l2v.app.settings import PromptName

T = TypeVar("T")


class EmbedRequest(StrictRequest):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": ["the cat sits on the mat"], "instruction": "Retrieve semantically similar text:"}]
        }
    )

    inputs: Inputs = Field(description='"text", {"text", "instruction"}, or a list of these or ["instruction", "text"]')
    model: ModelChoice | None = Field(None, description=MODEL)
    instruction: Instruction | None = Field(None, description="Instruction for the inputs that have none of their own")
    prompt_name: PromptName | None = Field(None, description="Named prompt to use as the instruction")
    normalize: StrictBool = Field(True, description="Scale each vector to length 1; the reference does not")
    dimensions: Dimensions | None = Field(None, description="Number of leading dimensions to keep")
    truncate: StrictBool = Field(True, description="Truncate texts that are too long instead of rejecting them")
    encoding_format: EncodingFormat = "float"
    output_dtype: OutputType = "float"


class EmbedResponse(BaseModel):
    """One vector per input, in order."""

    model: str
    dimensions: int
    embeddings: list[list[float]] | list[list[int]] | list[str]
    tokens: list[int] = Field(description="Number of tokens of each input, including template and special tokens")
    truncated: list[int] = Field(description="Positions of the inputs that were truncated")


class SimilarityRequest(StrictRequest):
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

    queries: Inputs = Field(description="Same form as `inputs` of /embed")
    documents: Inputs | None = Field(None, description="Same form as `queries`; default: the queries themselves")
    model: ModelChoice | None = Field(None, description=f"{MODEL}; it embeds both sides")
    query_instruction: Instruction | None = Field(None, description="For the queries that have none of their own")
    document_instruction: Instruction | None = Field(None, description="For the documents that have none of their own")
    query_prompt_name: PromptName | None = Field(None, description="Named prompt to use as query_instruction")
    document_prompt_name: PromptName | None = Field(None, description="Named prompt to use as document_instruction")
    metric: Literal["cosine", "dot"] | None = Field(
        None,
        description="dot: the product of the vectors, which are normalized only if the model declares that. Default: "
        "the model's own metric, else cosine",
    )
    top_k: Dimensions | None = Field(None, description="Return only this many best documents of each query, best first")
    truncate: StrictBool = Field(True, description="Truncate texts that are too long instead of rejecting them")


class PerGroup(BaseModel, Generic[T]):
    """One value for the queries and one for the documents, if there are documents."""

    queries: T
    documents: T | None = None


class Match(BaseModel):
    """The position of a document, and its score."""

    index: int
    score: float


class SimilarityResponse(BaseModel):
    """One row per query: the scores of all documents, or the best matches if `top_k` is set."""

    model: str
    scores: list[list[float]] | None = None
    results: list[list[Match]] | None = None
    tokens: PerGroup[list[int]]
    truncated: PerGroup[list[int]]


class PromptsResponse(BaseModel):
    """The named prompts: name → instruction."""

    prompts: dict[str, str]
