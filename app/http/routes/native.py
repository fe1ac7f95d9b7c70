"""Our own API: /embed, /similarity and /prompts."""

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from l2v.app.engine import vectors
from l2v.app.engine.inputs import Side
from l2v.app.engine.prompts import DOCUMENT, QUERY, Shared
from l2v.app.http.errors import InvalidError, responses
from l2v.app.http.offload import offload
from l2v.app.http.responses import Long, to_json
from l2v.app.http.routes.dependencies import ServiceDep, TimingsDep
from l2v.app.http.schemas.inputs import read
from l2v.app.http.schemas.native import (
    EmbedRequest,
    EmbedResponse,
    PromptsResponse,
    SimilarityRequest,
    SimilarityResponse,
)

router = APIRouter(tags=["embeddings"])
_refusals = responses(400, 401, 413, 415, 422, 429, 500, 503, 504)


@router.post("/embed", response_model=EmbedResponse, responses=_refusals)
async def embed(request: EmbedRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Embeds texts, each under its instruction.

    The instruction is attended to and left out of pooling. Vectors come in the order of the inputs.
    """
    service.check_dimensions(request.dimensions)
    shared = service.prompts.instruction(request.instruction, request.prompt_name)
    side = _side("inputs", request.inputs, shared)
    (embedded,) = await service.embed([side], request.truncate, timings)
    with timings.stage("finish"):
        rows = await offload(embedded.numbers, vectors.finish, embedded.rows, request.dimensions, request.normalize)
        shown = rows if request.encoding_format == "float" else await offload(rows.size, vectors.encode_base64, rows)
        return await to_json(
            {
                "model": service.model,
                "dimensions": rows.shape[1],
                "embeddings": Long(shown, rows.shape[1]),
                "tokens": embedded.tokens,
                "truncated": embedded.truncated,
            }
        )


@router.post("/similarity", response_model=SimilarityResponse, responses=_refusals)
async def similarity(request: SimilarityRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Compares queries with documents, each side under its own instruction."""
    shared = service.prompts.instruction(request.query_instruction, request.query_prompt_name, QUERY)
    sides = [_side("queries", request.queries, shared)]
    instruction, prompt_name = request.document_instruction, request.document_prompt_name
    if request.documents is not None:
        shared = service.prompts.instruction(instruction, prompt_name, DOCUMENT)
        sides.append(_side("documents", request.documents, shared))
    elif instruction is not None or prompt_name is not None:
        raise InvalidError(
            "goes with documents: without them the queries are compared with each other",
            "document_prompt_name" if instruction is None else "document_instruction",
        )
    embedded = await service.embed(sides, request.truncate, timings)
    with timings.stage("finish"):
        numbers = sum(side.numbers for side in embedded)
        matrix = await offload(numbers, vectors.scores, embedded[0].rows, embedded[-1].rows, request.metric)
        if request.top_k is None:
            outcome = {"scores": Long(matrix, matrix.shape[1])}
        else:
            best = await asyncio.to_thread(vectors.best, matrix, request.top_k)
            outcome = {"results": Long(best, request.top_k)}
        names = [side.name for side in sides]
        return await to_json(
            {
                "model": service.model,
                **outcome,
                "tokens": {name: side.tokens for name, side in zip(names, embedded, strict=True)},
                "truncated": {name: side.truncated for name, side in zip(names, embedded, strict=True)},
            }
        )


def _side(name: str, inputs: Any, shared: Shared) -> Side:
    return Side(name, read(inputs, shared.text), shared, single=not isinstance(inputs, list))


@router.get("/prompts", responses=responses(401))
async def prompts(service: ServiceDep) -> PromptsResponse:
    """The named prompts; `query` and `document` are the defaults of the two sides of /similarity."""
    return PromptsResponse(prompts=service.prompts.by_name)
