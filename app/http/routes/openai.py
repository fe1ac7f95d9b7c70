"""The OpenAI surface: /v1/embeddings and /v1/models."""

from typing import Any

from fastapi import Response

from l2v.app.engine.errors import NotFoundError
from l2v.app.http import surfaces
from l2v.app.http.errors import responses
from l2v.app.http.responses import ChunkedList, encoded, json_response
from l2v.app.http.routes.dependencies import ServiceDep, TimingsDep
from l2v.app.http.routes.texts import text_group
from l2v.app.http.schemas.openai import EmbeddingsRequest, EmbeddingsResponse, Model, ModelsResponse

router = surfaces.openai(tags=["OpenAI"])


@router.post(
    "/embeddings", response_model=EmbeddingsResponse, responses=responses(400, 401, 413, 415, 429, 500, 503, 504)
)
async def embeddings(request: EmbeddingsRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Embeds texts as the OpenAI API does. `instruction`, `prompt_name` and `truncate` are extensions."""
    instruction = service.prompts.select(request.instruction, request.prompt_name)
    group = await text_group(service, "input", request.input, instruction)
    vectors, embedded = await service.embed(
        group, timings, truncate=request.truncate, dimensions=request.dimensions, normalize=True
    )
    with timings.stage("finish"):
        rows = encoded(vectors, request.encoding_format)

        def objects(start: int, stop: int) -> list[dict[str, Any]]:
            items = enumerate(rows.items(start, stop), start)
            return [{"object": "embedding", "index": index, "embedding": vector} for index, vector in items]

        tokens = sum(embedded.tokens)
        return await json_response(
            {
                "object": "list",
                "data": ChunkedList(rows.length, rows.width, objects),
                "model": service.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


@router.get("/models", responses=responses(401))
async def models(service: ServiceDep) -> ModelsResponse:
    """The served model."""
    return ModelsResponse(data=[_model(service)])


@router.get("/models/{name:path}", responses=responses(401, 404))
async def model(name: str, service: ServiceDep) -> Model:
    """The served model, if it has this name."""
    if name != service.model:
        raise NotFoundError(f"the served model is {service.model}", "model")
    return _model(service)


def _model(service: ServiceDep) -> Model:
    return Model(id=service.model, created=service.started, owned_by="l2v")
