"""Requests and responses of the native API."""

from collections.abc import Iterator
from typing import Literal

import orjson
from pydantic import BaseModel, Field, StrictBool

from l2v.app.http.errors import example
from l2v.app.http.schemas.fields import StrictRequest
from l2v.app.http.schemas.inputs import MODEL, Dimensions, EncodingFormat, Inputs, Instruction, ModelChoice, OutputType
from l2v.app.settings import PromptName
from l2v.models.roles import Role, Token


class EmbedRequest(StrictRequest):
    """Texts to embed."""

    model_config = example(
        inputs=["the cat sits on the mat"], instruction="Retrieve semantically similar text:", dimensions=3
    )

    inputs: Inputs = Field(
        description='"text" or {"text", "instruction"}, or a list of inputs, each of which may also be '
        '["instruction", "text"]'
    )
    model: ModelChoice | None = Field(None, description=MODEL)
    instruction: Instruction | None = Field(None, description="Instruction for the inputs that have none of their own")
    prompt_name: PromptName | None = Field(None, description="Named prompt to use as the instruction")
    normalize: StrictBool = Field(True, description="Scale each vector to length 1 (the package llm2vec does not)")
    dimensions: Dimensions | None = Field(None, description="Number of leading dimensions to keep")
    truncate: StrictBool = Field(True, description="Truncate texts that are too long instead of rejecting them")
    encoding_format: EncodingFormat = "float"
    output_dtype: OutputType = "float"


class EmbedResponse(BaseModel):
    """One vector per input, in order."""

    model_config = example(model="demo", dimensions=3, embeddings=[[0.5524, 0.7694, 0.3209]], tokens=[11], truncated=[])

    model: str = Field(description="The served model")
    dimensions: int = Field(description="Number of dimensions of each vector")
    embeddings: list[list[float]] | list[list[int]] | list[str] = Field(
        description="The vectors, in the order of the inputs; strings if `encoding_format` is base64"
    )
    tokens: list[int] = Field(description="Number of tokens of each input, including template and special tokens")
    truncated: list[int] = Field(description="Positions of the inputs that were truncated")


class SimilarityRequest(StrictRequest):
    """Queries to compare with documents."""

    model_config = example(
        queries="where does the cat sit?",
        documents=["the cat sits on the mat", "stocks fell sharply"],
        query_instruction="Given a question, retrieve passages that answer it:",
    )

    queries: Inputs = Field(description="Same form as `inputs` of /embed")
    documents: Inputs | None = Field(None, description="Same form as `queries`; default: the queries themselves")
    model: ModelChoice | None = Field(None, description=f"The model for queries and documents. {MODEL}")
    query_instruction: Instruction | None = Field(None, description="For the queries without their own instruction")
    document_instruction: Instruction | None = Field(
        None, description="For the documents without their own instruction"
    )
    query_prompt_name: PromptName | None = Field(None, description="Named prompt to use as query_instruction")
    document_prompt_name: PromptName | None = Field(None, description="Named prompt to use as document_instruction")
    metric: Literal["cosine", "dot"] | None = Field(
        None,
        description="dot: the dot product of the vectors, which are normalized only if the model declares that. "
        "Default: the metric that the model declares, else cosine",
    )
    top_k: Dimensions | None = Field(
        None, description="Return only this many documents per query: the best ones, best first"
    )
    truncate: StrictBool = Field(True, description="Truncate texts that are too long instead of rejecting them")


class Counts(BaseModel):
    """One list for the queries and one for the documents, if there are documents."""

    queries: list[int] = Field(description="For the queries")
    documents: list[int] | None = Field(None, description="For the documents, if there are documents")


class Match(BaseModel):
    """The position of a document, and its score."""

    index: int = Field(description="Position of the document in the request")
    score: float = Field(description="Its similarity to the query")


class SimilarityResponse(BaseModel):
    """One row per query: the scores of all documents, or the best matches if `top_k` is set."""

    model_config = example(
        model="demo",
        scores=[[0.71, 0.02]],
        tokens={"queries": [16], "documents": [7, 5]},
        truncated={"queries": [], "documents": []},
    )

    model: str = Field(description="The served model")
    scores: list[list[float]] | None = Field(None, description="For each query, its similarity to each document")
    results: list[list[Match]] | None = Field(None, description="For each query, its best documents, best first")
    tokens: Counts = Field(description="Number of tokens of each input, including template and special tokens")
    truncated: Counts = Field(description="Positions of the inputs that were truncated")


class TokenizeRequest(StrictRequest):
    """Texts to tokenize."""

    model_config = example(inputs=["the cat sits"], instruction="Find:")

    inputs: Inputs = Field(description="Same form as `inputs` of /embed")
    model: ModelChoice | None = Field(None, description=MODEL)
    instruction: Instruction | None = Field(None, description="Instruction for the inputs that have none of their own")
    prompt_name: PromptName | None = Field(None, description="Named prompt to use as the instruction")
    truncate: StrictBool = Field(True, description="Truncate texts that are too long instead of rejecting them")


class RowToken(BaseModel):
    """A token that the model gets."""

    id: int = Field(description="Its id")
    text: str = Field(description="Its text; `\ufffd` if it is part of a character")
    role: Role = Field(description="What the token is part of")
    pooled: bool = Field(description="Whether it is pooled")


class TokenizeResponse(BaseModel):
    """One list of tokens per input, in order."""

    model_config = example(
        model="demo",
        tokens=[
            [
                {"id": 0, "text": "<s>", "role": "special", "pooled": False},
                {"id": 1390, "text": " find", "role": "instruction", "pooled": False},
                {"id": 999, "text": " cat", "role": "text", "pooled": True},
            ]
        ],
        truncated=[],
    )

    model: str = Field(description="The served model")
    tokens: list[list[RowToken]] = Field(description="The tokens of each input, with template and special tokens")
    truncated: list[int] = Field(description="Positions of the inputs that were truncated")


def render(tokens: Iterator[Token]) -> orjson.Fragment:
    """The tokens of an input as JSON text, which takes a tenth of the memory of the token objects."""
    return orjson.Fragment(orjson.dumps([token._asdict() for token in tokens]))


class PromptsResponse(BaseModel):
    """The named prompts: name → instruction."""

    model_config = example(prompts={"query": "Given a question, retrieve passages that answer it:"})

    prompts: dict[str, str] = Field(description="The text of each prompt, by name")
