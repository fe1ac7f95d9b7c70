"""The OpenAI API: /v1/embeddings and /v1/models."""

from typing import Any

from fastapi import Response

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.inputs import DefaultInstruction, EmbeddedGroup
from l2v.app.engine.prompts import Prompts
from l2v.app.engine.service import Service
from l2v.app.http import surfaces
from l2v.app.http.endpoints import Call
from l2v.app.http.errors import responses
from l2v.app.http.responses import ChunkedList
from l2v.app.http.routes.dependencies import CallDep, ServiceDep
from l2v.app.http.routes.embedding import embed_group
from l2v.app.http.routes.texts import text_group
from l2v.app.http.schemas.openai import EmbeddingsFields, EmbeddingsRequest, EmbeddingsResponse, Model, ModelsResponse

router = surfaces.openai(tags=["OpenAI"])


@router.post(
    "/embeddings", response_model=EmbeddingsResponse, responses=responses(400, 401, 404, 413, 415, 429, 500, 503, 504)
)
async def embeddings(request: EmbeddingsRequest, call: CallDep) -> Response:
    """Embeds texts as the OpenAI API does."""
    return await respond(request, call)


async def respond(request: EmbeddingsFields, call: Call) -> Response:
    """The response to an embeddings request in OpenAI's form, which TEI accepts too."""
    model = call.choose(request.model)
    if request.truncate_prompt_tokens is not None and not request.truncates:
        raise InvalidError("cannot be combined with a 'truncate' that rejects texts", "truncate_prompt_tokens")
    group = await text_group(
        call,
        model,
        "input",
        request.input,
        _instruction(request, model.prompts),
        keep_end=request.keep_end,
        max_tokens=request.max_tokens_per_text,
        truncate=request.truncates,
    )

    def content(rows: ChunkedList, embedded: EmbeddedGroup) -> dict[str, Any]:
        def objects(start: int, stop: int) -> list[dict[str, Any]]:
            items = enumerate(rows.items(start, stop), start)
            return [{"object": "embedding", "index": index, "embedding": vector} for index, vector in items]

        tokens = sum(embedded.tokens)
        return {
            "object": "list",
            "data": ChunkedList(rows.length, rows.width, objects),
            "model": model.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    return await embed_group(call, model, group, request, content, truncate=request.truncates)


@router.get("/models", responses=responses(401))
async def models(service: ServiceDep) -> ModelsResponse:
    """The served models: the base, once for each of its names, and the adapters on top of it."""
    return ModelsResponse(data=[_model(service, name) for name in service.models.sources])


@router.get("/models/{name:path}", responses=responses(401, 404))
async def model(name: str, service: ServiceDep) -> Model:
    """The served model with this name."""
    if name not in service.models:
        raise service.models.unknown()
    return _model(service, name)


def _instruction(request: EmbeddingsFields, prompts: Prompts) -> DefaultInstruction:
    if request.instruction is None and request.prompt_name is None and (side := request.side):
        return DefaultInstruction(prompts.default(side), "input_type" if request.input_type else "task")
    return prompts.select(request.instruction, request.prompt_name)


def _model(service: Service, name: str) -> Model:
    models = service.models
    parent = models.base_name if models.is_adapter(name) else None
    return Model(id=name, created=service.started, owned_by="l2v", root=models.sources[name], parent=parent)
