"""Requests and responses of the OpenAI API, with our extensions."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt

from l2v.app.http.errors import example
from l2v.app.http.schemas.fields import NoEffect, Rejected, Request, StrictRequest
from l2v.app.http.schemas.inputs import (
    MODEL,
    Dimensions,
    EncodingFormat,
    Instruction,
    ModelChoice,
    OutputType,
    TextsOrIds,
    Truncate,
)
from l2v.app.settings import PromptName

_DTYPE = "Send 'output_dtype'"


class EmbeddingsFields(Request):
    """The fields of an embeddings request that are accepted: OpenAI's, ours, and those of other services' clients."""

    truncates_by_default: ClassVar[bool] = False

    input: TextsOrIds = Field(description="A text, a list of token ids, or a list of either")
    model: ModelChoice | None = Field(None, description=MODEL)
    dimensions: Dimensions | None = Field(None, description="Number of leading dimensions to keep")
    encoding_format: EncodingFormat = "float"

    instruction: Instruction | None = Field(None, description="Instruction for the texts; an empty one means none")
    prompt_name: PromptName | None = Field(None, description="Named prompt to use as the instruction")
    input_type: Literal["query", "search_query", "document", "search_document", "passage"] | None = Field(
        None,
        description="Use the prompt `query` or `document` if there is one; `instruction` and `prompt_name` override it",
    )
    task: Literal["retrieval.query", "retrieval.passage"] | None = Field(None, description="The same as `input_type`")
    normalize: StrictBool = Field(True, description="Scale each vector to length 1")
    output_dtype: OutputType = "float"
    truncate: Truncate | None = Field(
        None,
        description="What to do with texts that are too long: END cuts off their end, START cuts off their beginning, "
        "and true cuts off the side that `truncation_side` names. false and NONE reject them. Default: true under /tei "
        "or with `truncate_prompt_tokens`, else false",
    )
    truncate_prompt_tokens: Annotated[StrictInt, Field(ge=-1)] | None = Field(
        None,
        description="Truncate each text so that it has at most this many tokens, with template and special tokens. -1 "
        "means the model's maximum",
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None,
        description="Side on which texts are truncated; default: as the model's tokenizer declares, else right, "
        "the end",
    )

    user: Annotated[Any, NoEffect("nothing is stored about users")] = None
    metadata: Annotated[Any, NoEffect("nothing is stored about requests")] = None
    max_tokens: Annotated[Any, NoEffect("it limits generated tokens, and embeddings have none")] = None
    priority: Annotated[Any, NoEffect("all requests have the same priority")] = None
    request_id: Annotated[Any, NoEffect("the header X-Request-Id sets the id")] = None
    cache_salt: Annotated[Any, NoEffect("requests share no cache")] = None
    drop_params: Annotated[Any, NoEffect("it is an option of gateways")] = None

    @property
    def side(self) -> str | None:
        """`query` or `document` if `input_type` or `task` says which of the two the texts are, else None."""
        kind = self.input_type or self.task
        return kind and ("query" if kind.endswith("query") else "document")

    @property
    def truncates(self) -> bool:
        """Whether texts that are too long are truncated rather than rejected."""
        if self.truncate is None:
            return self.truncate_prompt_tokens is not None or self.truncates_by_default
        return self.truncate not in (False, "NONE")

    @property
    def keep_end(self) -> bool | None:
        """Whether truncated texts keep their end; None if the request does not say."""
        if self.truncate in ("START", "END"):
            return self.truncate == "START"
        return self.truncation_side and self.truncation_side == "left"

    @property
    def max_tokens_per_text(self) -> int | None:
        """The limit that `truncate_prompt_tokens` sets; None if the model's own limit applies."""
        return self.truncate_prompt_tokens if self.truncate_prompt_tokens != -1 else None


class EmbeddingsRequest(EmbeddingsFields, StrictRequest):
    """`POST /v1/embeddings`. With OpenAI's client, use `extra_body` for fields that OpenAI doesn't have."""

    inputs: Annotated[None, Rejected("Send the texts as 'input'")] = None
    texts: Annotated[None, Rejected("Send the texts as 'input'")] = None
    messages: Annotated[None, Rejected("Send the texts as 'input'")] = None
    prompt: Annotated[None, Rejected("Send the texts as 'input', and an instruction as 'instruction'")] = None
    task_type: Annotated[None, Rejected("Send 'input_type'")] = None
    normalized: Annotated[Any, Rejected("Send 'normalize'", allowed=(True,))] = None
    use_activation: Annotated[Any, Rejected("Send 'normalize'", allowed=(True,))] = None
    truncation: Annotated[None, Rejected("Send 'truncate'")] = None
    output_dimension: Annotated[None, Rejected("Send 'dimensions'")] = None
    embedding_type: Annotated[Any, Rejected(_DTYPE, allowed=("float",))] = None
    embedding_types: Annotated[None, Rejected(f"{_DTYPE}, or use /v2/embed")] = None
    embed_dtype: Annotated[Any, Rejected(_DTYPE, allowed=("float32",))] = None
    return_multivector: Annotated[Any, Rejected("/tei/embed_all returns a vector per token", allowed=(False,))] = None
    late_chunking: Annotated[Any, Rejected("Each text is embedded on its own", allowed=(False,))] = None
    add_special_tokens: Annotated[Any, Rejected("Special tokens are always added", allowed=(True,))] = None
    modality: Annotated[Any, Rejected("Only texts can be embedded", allowed=("text",))] = None


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"] = Field("embedding", description="Always `embedding`")
    index: int = Field(description="Position of the text in the request")
    embedding: list[float] | list[int] | str = Field(description="The vector; a string if `encoding_format` is base64")


class Usage(BaseModel):
    """The tokens of the request."""

    prompt_tokens: int = Field(description="Number of tokens, including template and special tokens")
    total_tokens: int = Field(description="The same number")


class EmbeddingsResponse(BaseModel):
    """One vector per input, in order."""

    model_config = example(
        object="list",
        data=[{"object": "embedding", "index": 0, "embedding": [0.5524, 0.7694, 0.3209]}],
        model="demo",
        usage={"prompt_tokens": 7, "total_tokens": 7},
    )

    object: Literal["list"] = Field("list", description="Always `list`")
    data: list[Embedding] = Field(description="The vectors, in the order of the texts")
    model: str = Field(description="The served model")
    usage: Usage = Field(description="The tokens of the request")


_MODEL = {"id": "demo", "object": "model", "created": 1_790_000_000, "owned_by": "l2v", "root": "demo", "parent": None}


class Model(BaseModel):
    """A served model."""

    model_config = example(**_MODEL)

    id: str = Field(description="Its name")
    object: Literal["model"] = Field("model", description="Always `model`")
    created: int = Field(description="When the service started, in seconds since 1970")
    owned_by: str = Field(description="Always `l2v`")
    root: str = Field(description="Where the model comes from")
    parent: str | None = Field(description="The name of the base if this is an adapter, else null")


class ModelsResponse(BaseModel):
    """The list of served models."""

    model_config = example(object="list", data=[_MODEL])

    object: Literal["list"] = Field("list", description="Always `list`")
    data: list[Model] = Field(description="The models")
