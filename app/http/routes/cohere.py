"""The Cohere API: /v2/embed."""

from uuid import uuid4

from fastapi import Response

from l2v.app.engine.dimensions import choose_dimensions, dimensions_warning
from l2v.app.engine.errors import InvalidError
from l2v.app.engine.inputs import DefaultInstruction, InputGroup
from l2v.app.http import surfaces
from l2v.app.http.errors import responses
from l2v.app.http.responses import ChunkedList, Encoding, encoded, json_response, text_bytes, vector_bytes
from l2v.app.http.routes.dependencies import CallDep
from l2v.app.http.schemas.cohere import CohereErrorBody, CohereRequest, CohereResponse
from l2v.models import Input

router = surfaces.cohere(tags=["Cohere"])
_rejections = {
    status: response | {"model": CohereErrorBody}
    for status, response in responses(400, 401, 404, 413, 415, 429, 500, 503, 504).items()
}
_PROMPTS = {"search_query": "query", "search_document": "document"}
# A text counts as this many numbers when a response is divided into chunks.
_TEXT_WIDTH = 256


@router.post("/embed", response_model=CohereResponse, responses=_rejections)
async def embed(request: CohereRequest, call: CallDep) -> Response:
    """Embeds texts as the Cohere API does, in one or more types."""
    service, model, dtypes, wanted = call.service, call.choose(request.model), request.dtypes, request.output_dimension
    try:
        for dtype in dtypes.values():
            width = choose_dimensions(model.profile.declaration, model.profile.width, wanted, dtype)
    except InvalidError as error:
        param = {"dimensions": "output_dimension", "output_dtype": "embedding_types"}.get(error.param or "")
        raise InvalidError(str(error), param or error.param) from None
    kind = request.input_type or ""
    instruction = DefaultInstruction(model.prompts.default(_PROMPTS.get(kind, kind)), "input_type")
    keep_end = request.truncate == "START" if "truncate" in request.model_fields_set else None
    inputs = [Input(text, instruction.text, keep_end, request.max_tokens) for text in request.texts]
    encodings: dict[str, Encoding] = {kind: "base64" if kind == "base64" else "float" for kind in dtypes}
    size = sum(vector_bytes(width, encodings[kind], dtype) for kind, dtype in dtypes.items()) * len(inputs)
    size += sum(map(text_bytes, request.texts))
    vectors, embedded = await service.embed(
        model,
        InputGroup("texts", inputs, instruction),
        call.timings,
        truncate=request.truncate != "NONE",
        dimensions=wanted,
        normalize=True,
        reserve=lambda width: call.reserve(size),
    )
    with call.timings.stage("finish"):
        arrays = {
            kind: vectors if dtype == "float" else await service.postprocess(model, embedded.rows, width, True, dtype)
            for kind, dtype in dtypes.items()
        }
        content = {
            "id": str(uuid4()),
            "response_type": "embeddings_by_type",
            "texts": ChunkedList.of(request.texts, _TEXT_WIDTH),
            "embeddings": {kind: encoded(array, encodings[kind]) for kind, array in arrays.items()},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": sum(embedded.tokens)}},
        }
        return await json_response(content, dimensions_warning(model.profile.declaration, model.profile.width, wanted))
