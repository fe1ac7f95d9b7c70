"""The OpenAI surface: /v1/embeddings and /v1/models, over the same service."""

from fastapi import APIRouter, Response

from l2v.app.engine import vectors
from l2v.app.http.errors import NotFoundError, responses
from l2v.app.http.offload import offload
from l2v.app.http.responses import Long, to_json
from l2v.app.http.routes.dependencies import ServiceDep, TimingsDep
from l2v.app.http.routes.texts import side_of
from l2v.app.http.schemas.openai import EmbeddingsRequest, EmbeddingsResponse, Model, ModelsResponse

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post(
    "/embeddings", response_model=EmbeddingsResponse, responses=responses(400, 401, 413, 415, 429, 500, 503, 504)
)
async def embeddings(request: EmbeddingsRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Embeds as the OpenAI API does. `instruction`, `prompt_name` and `truncate` are extensions for `extra_body`."""
    service.check_dimensions(request.dimensions)
    shared = service.prompts.instruction(request.instruction, request.prompt_name)
    side = await side_of(service, request.input, "input", shared)
    (embedded,) = await service.embed([side], request.truncate, timings)
    with timings.stage("finish"):
        rows = await offload(embedded.numbers, vectors.finish, embedded.rows, request.dimensions, True)
        shown = await offload(rows.size, vectors.encode_base64, rows) if request.encoding_format == "base64" else rows
        tokens = sum(embedded.tokens)
        return await to_json(
            {
                "object": "list",
                "data": Long(
                    [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(shown)],
                    rows.shape[1],
                ),
                "model": service.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


@router.get("/models", responses=responses(401))
async def models(service: ServiceDep) -> ModelsResponse:
    """The one model that is served."""
    return ModelsResponse(data=[_model(service)])


@router.get("/models/{name:path}", responses=responses(401, 404))
async def model(name: str, service: ServiceDep) -> Model:
    """The served model, if it is called so."""
    if name != service.model:
        raise NotFoundError(f"the model served is {service.model}", "model")
    return _model(service)


def _model(service: ServiceDep) -> Model:
    return Model(id=service.model, created=service.started, owned_by="l2v")
