"""Responses of the endpoints for operators and probes."""

from typing import Any

from pydantic import BaseModel, Field

from l2v.app.engine.lifecycle import State
from l2v.app.http.errors import example


class StateResponse(BaseModel):
    """The state of the service."""

    model_config = example(status="ready")

    status: State = Field(description="Only `ready` accepts requests")


class Setting(BaseModel):
    """A property of the model, and what set it."""

    value: Any = Field(description="The value")
    origin: str = Field(description="What set it: `setting`, the name of one of the model's files, or `default`")


class SourceInfo(BaseModel):
    """A repository or folder that the model was loaded from."""

    name: str = Field(description="Hub id, or the folder's name")
    kind: str = Field(description="`base`, `adapter` or `export`")
    revision: str = Field(description="The commit on the Hub; empty for a folder")


class Limits(BaseModel):
    """The limits of requests."""

    max_inputs: int = Field(description="Maximum inputs per request, queries and documents together")
    max_characters: int = Field(description="Maximum characters of one text or instruction")
    max_body_bytes: int = Field(description="Maximum bytes of a request body")
    max_header_bytes: int = Field(description="Maximum bytes of path and headers")
    max_requests: int = Field(description="Maximum requests in progress")
    max_queue_tokens: int = Field(description="Maximum tokens in the queue")


class AdapterInfo(BaseModel):
    """An adapter that is applied without merging."""

    rank: int = Field(description="The largest rank of its changes")
    layers: int = Field(description="Number of linear layers that it changes")
    size: int = Field(alias="bytes", description="Size of its weights on the device")
    other_base: str | None = Field(description="The base that it was trained on, if that is not the served base")


class ModelInfo(BaseModel):
    """The properties in which served models differ."""

    model: str = Field(description="The served model")
    dimensions: int = Field(description="Number of dimensions of a vector by default")
    pooling: str = Field(description="The pooling mode")
    template: str = Field(description="The template around each input")
    max_length: int = Field(description="Maximum tokens of an input, with its instruction")
    doc_max_length: int = Field(description="Maximum tokens of a text, before its instruction is added")
    skip_instruction: bool = Field(description="Whether the instruction is excluded from pooling")
    settings: dict[str, Setting] = Field(description="The properties that a setting or a file may change, by name")
    sources: list[SourceInfo] = Field(description="What the model was loaded from, the base first")
    left_out: list[str] = Field(description="Tensors of the sources that the model does not need")
    adapter: AdapterInfo | None = Field(None, description="The unmerged adapter; absent for the base")


class InfoResponse(ModelInfo):
    """The base, the limits of requests, and the properties in which the models differ."""

    model_config = example(
        model="demo",
        version="0.2.0",
        dtype="float32",
        device="cpu",
        base="l2v/demo",
        architecture="llama",
        dimensions=256,
        parameters=3_500_000,
        pooling="mean",
        template="none",
        max_length=512,
        doc_max_length=400,
        skip_instruction=True,
        attention="bidirectional",
        settings={"pooling": {"value": "mean", "origin": "default"}},
        sources=[{"name": "demo", "kind": "base", "revision": ""}],
        left_out=[],
        limits={
            "max_inputs": 2048,
            "max_characters": 100_000,
            "max_body_bytes": 16_777_216,
            "max_header_bytes": 32_768,
            "max_requests": 512,
            "max_queue_tokens": 1_048_576,
        },
        models=[],
    )

    version: str = Field(description="The version of l2v")
    dtype: str = Field(description="The dtype of the base's weights")
    device: str = Field(description="The device that the models run on")
    base: str = Field(description="The base model, which determines the template")
    architecture: str = Field(description="`model_type` in the config.json of the base")
    parameters: int = Field(description="Number of parameters")
    attention: str = Field(description="`bidirectional` or `causal`")
    limits: Limits = Field(description="The limits of requests")
    models: list[ModelInfo] = Field(description="All models that requests can choose, the base first")
