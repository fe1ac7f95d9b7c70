"""Our own API: /embed and /similarity."""

from typing import Any

from fastapi import APIRouter, Response

from app import vectors
from app.errors import InvalidError, responses
from app.routes.dependencies import ServiceDep, TimingsDep
from app.schemas import EmbedRequest, EmbedResponse, SimilarityRequest, SimilarityResponse, read
from app.service import Service, Side

router = APIRouter(tags=["embeddings"], responses=responses(400, 401, 413, 415, 422, 429, 500, 503, 504))


def _json(content: dict[str, Any]) -> Response:
    return Response(vectors.to_json(content), media_type="application/json")


def _check_dimensions(service: Service, dimensions: int | None) -> None:
    available = service.encoder.dimensions
    if dimensions is not None and dimensions > available:
        raise InvalidError(f"must be at most {available}, the dimensions of the model", "dimensions")


@router.post("/embed", response_model=EmbedResponse)
async def embed(request: EmbedRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Embeds texts, each under its instruction.

    The instruction is attended to and left out of pooling. Vectors come in the order of the inputs.
    """
    _check_dimensions(service, request.dimensions)
    side = Side("inputs", read(request.inputs, request.instruction), single=not isinstance(request.inputs, list))
    (embedded,) = await service.embed([side], request.truncate, timings)
    with timings.stage("finish"):
        rows = vectors.shorten(embedded.vectors, request.dimensions)
        if request.normalize:
            rows = vectors.normalize(rows)
        return _json(
            {
                "model": service.model,
                "dimensions": rows.shape[1],
                "embeddings": vectors.encode_base64(rows) if request.encoding_format == "base64" else rows,
                "tokens": embedded.tokens,
                "truncated": embedded.truncated,
            }
        )


@router.post("/similarity", response_model=SimilarityResponse, response_model_exclude_none=True)
async def similarity(request: SimilarityRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Compares queries with documents, each side under its own instruction."""
    if request.documents is None and request.document_instruction is not None:
        raise InvalidError(
            "needs documents: without them the queries are compared with each other", "document_instruction"
        )
    sides = [
        Side(name, read(inputs, instruction), single=not isinstance(inputs, list))
        for name, inputs, instruction in (
            ("queries", request.queries, request.query_instruction),
            ("documents", request.documents, request.document_instruction),
        )
        if inputs is not None
    ]
    embedded = await service.embed(sides, request.truncate, timings)
    with timings.stage("finish"):
        matrix = vectors.scores(embedded[0].vectors, embedded[-1].vectors, request.metric)
        outcome = {"scores": matrix} if request.top_k is None else {"results": vectors.best(matrix, request.top_k)}
        names = [side.name for side in sides]
        return _json(
            {
                "model": service.model,
                **outcome,
                "tokens": {name: side.tokens for name, side in zip(names, embedded, strict=True)},
                "truncated": {name: side.truncated for name, side in zip(names, embedded, strict=True)},
            }
        )
