"""The steps that the endpoints for embeddings share."""

from collections.abc import Callable
from typing import Any

from fastapi import Response

from l2v.app.engine.dimensions import dimensions_warning
from l2v.app.engine.inputs import EmbeddedGroup, InputGroup
from l2v.app.engine.served_models import ServedModel
from l2v.app.http.endpoints import Call
from l2v.app.http.responses import ChunkedList, encoded, json_response, vector_bytes
from l2v.app.http.schemas.native import EmbedRequest
from l2v.app.http.schemas.openai import EmbeddingsFields
from l2v.app.http.schemas.tei import TeiEmbedRequest


async def embed_group(
    call: Call,
    model: ServedModel,
    group: InputGroup,
    request: EmbedRequest | EmbeddingsFields | TeiEmbedRequest,
    content: Callable[[ChunkedList, EmbeddedGroup], Any],
    *,
    truncate: bool,
) -> Response:
    """Embeds a group of inputs as the request asks.

    Args:
        call: the service and the state of the request.
        model: the model to use.
        group: the inputs.
        request: the request, whose fields describe the vectors to return.
        content: a function that takes the vectors and the embedded group and returns the body of the response.
        truncate: whether to truncate texts that are too long rather than reject them.
    """
    dimensions, encoding, dtype = request.dimensions, request.encoding_format, request.output_dtype
    vectors, embedded = await call.service.embed(
        model,
        group,
        call.timings,
        truncate=truncate,
        dimensions=dimensions,
        normalize=request.normalize,
        dtype=dtype,
        reserve=lambda width: call.reserve(len(group.inputs) * vector_bytes(width, encoding, dtype)),
    )
    with call.timings.stage("finish"):
        warning = dimensions_warning(model.profile.declaration, model.profile.width, dimensions)
        return await json_response(content(encoded(vectors, encoding), embedded), warning)
