"""The surface of text-embeddings-inference under /tei, over the same service."""

from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from l2v.app import __version__
from l2v.app.engine import vectors
from l2v.app.engine.inputs import Side, about_tokens
from l2v.app.http.errors import TABLE, TooLargeError
from l2v.app.http.offload import offload
from l2v.app.http.responses import Long, to_json
from l2v.app.http.routes import openai, operations
from l2v.app.http.routes.dependencies import ServiceDep, TimingsDep
from l2v.app.http.routes.texts import side_of, texts_of
from l2v.app.http.schemas.openai import EmbeddingsResponse
from l2v.app.http.schemas.tei import (
    DecodeRequest,
    EmbedAllRequest,
    OpenaiRequest,
    Options,
    TeiEmbedRequest,
    TeiErrorBody,
    TeiOpenaiErrorBody,
    TeiSimilarityRequest,
    Token,
    TokenizeRequest,
)
from l2v.models import Input

# Numbers of a text's tokens, at most: each text is a piece of its own.
_ROW = 65_536

router = APIRouter(prefix="/tei", tags=["TEI"])
_refusals: dict[int | str, dict[str, Any]] = {
    status: {
        "model": TeiErrorBody,
        "description": " ".join(row.meaning for row in TABLE.values() if row.tei[0] == status),
    }
    for status in sorted({row.tei[0] for row in TABLE.values()} - {404, 405})
}


def _pick(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _refusals[status] for status in statuses}


async def _side(service: ServiceDep, inputs: Any, options: Options, name: str = "inputs") -> Side:
    shared = service.prompts.instruction(None, options.prompt_name)
    return await side_of(service, inputs, name, shared, keep_end=options.truncation_direction.lower() == "left")


def _truncate(options: Options) -> bool:
    return options.truncate is not False


@router.post("", response_model=list[list[float]], responses=_refusals, include_in_schema=False)
@router.post("/", response_model=list[list[float]], responses=_refusals, include_in_schema=False)
@router.post("/embed", response_model=list[list[float]], responses=_refusals)
async def embed(request: TeiEmbedRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """One vector for each input."""
    service.check_dimensions(request.dimensions)
    side = await _side(service, request.inputs, request)
    (embedded,) = await service.embed([side], _truncate(request), timings)
    with timings.stage("finish"):
        rows = await offload(embedded.numbers, vectors.finish, embedded.rows, request.dimensions, request.normalize)
        return await to_json(Long(rows, rows.shape[1]))


@router.post("/embed_all", response_model=list[list[list[float]]], responses=_refusals)
async def embed_all(request: EmbedAllRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """The state of every token of each input, special tokens and instruction among them."""
    side = await _side(service, request.inputs, request)
    (embedded,) = await service.embed([side], _truncate(request), timings, pooled=False)
    with timings.stage("finish"):
        return await to_json([Long(row, row.shape[1]) for row in embedded.rows])


@router.post("/similarity", response_model=list[float], responses=_refusals)
async def similarity(request: TeiSimilarityRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """The cosine of the source sentence with each other one; a named prompt goes before all."""
    options, inputs = request.parameters or Options(), request.inputs
    sides = [
        await _side(service, inputs.source_sentence, options, "inputs.source_sentence"),
        await _side(service, inputs.sentences, options, "inputs.sentences"),
    ]
    source, sentences = await service.embed(sides, _truncate(options), timings)
    with timings.stage("finish"):
        numbers = source.numbers + sentences.numbers
        matrix = await offload(numbers, vectors.scores, source.rows, sentences.rows, "cosine")
        return await to_json(matrix[0])


@router.post("/tokenize", response_model=list[list[Token]], responses=_refusals)
async def tokenize(request: TokenizeRequest, service: ServiceDep) -> Response:
    """Texts as tokens, without template, instruction before them where a prompt is named."""
    side = await side_of(service, request.inputs, "inputs", service.prompts.instruction(None, request.prompt_name))
    service.check_sizes([side])
    # Nothing is cut here, and an answer has a hundred bytes for each token.
    if (about := about_tokens([side])) > (most := service.settings.max_queue_tokens):
        raise TooLargeError(f"about {about} tokens, at most {most} (max_queue_tokens)", "inputs")
    tokens = 0

    def show(inputs: Sequence[Input]) -> list[orjson.Fragment]:
        """Text by text, as objects take five times the room of their JSON, and the tokens above are a guess."""
        nonlocal tokens
        shown = []
        for input_ in inputs:
            row = service.encoder.tokenization.show(input_, special=request.add_special_tokens)
            if (tokens := tokens + len(row)) > most:
                raise TooLargeError(f"more than {most} tokens (max_queue_tokens)", "inputs")
            shown.append(
                orjson.Fragment(orjson.dumps([dict(zip(Token.model_fields, token, strict=True)) for token in row]))
            )
        return shown

    return await to_json(Long(await service.tokenizers.run(show, side.inputs), _ROW))


@router.post("/decode", response_model=list[str], responses=_refusals)
async def decode(request: DecodeRequest, service: ServiceDep) -> Response:
    """Token ids as texts."""
    texts = await texts_of(service, request.ids, "ids", skip_special_tokens=request.skip_special_tokens)
    return await to_json(Long(texts, _ROW))


@router.get("/info", responses=_pick(401, 503))
async def info(service: ServiceDep) -> dict[str, Any]:
    """What is served, in TEI's words."""
    own, settings = service.info(), service.settings
    return {
        "model_id": service.model,
        "model_sha": own["sources"][-1]["revision"] or None,
        "model_dtype": own["dtype"],
        "model_type": {"embedding": {"pooling": own["pooling"]}},
        "max_concurrent_requests": settings.max_requests,
        "max_input_length": own["max_length"],
        "max_batch_tokens": service.max_batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": True,
        "tokenization_workers": service.tokenizers.workers,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


@router.get("", response_class=PlainTextResponse, responses=_pick(503), include_in_schema=False)
@router.get("/", response_class=PlainTextResponse, responses=_pick(503), include_in_schema=False)
@router.get("/ping", response_class=PlainTextResponse, responses=_pick(503), include_in_schema=False)
@router.head("/health", include_in_schema=False)
@router.get("/health", response_class=PlainTextResponse, responses=_pick(503))
async def health(service: ServiceDep) -> Response:
    """200 while requests are taken, as TEI's: it is asked before sending some."""
    service.check_open()
    return PlainTextResponse("")


router.add_api_route("/metrics", operations.metrics, response_class=PlainTextResponse, responses=_pick(401))


@router.post("/embeddings", response_model=EmbeddingsResponse, responses=_refusals, include_in_schema=False)
@router.post(
    "/v1/embeddings",
    response_model=EmbeddingsResponse,
    responses={status: refusal | {"model": TeiOpenaiErrorBody} for status, refusal in _refusals.items()},
)
async def embeddings(request: OpenaiRequest, service: ServiceDep, timings: TimingsDep) -> Response:
    """Embeds as the OpenAI API does, and shortens what is too long."""
    return await openai.embeddings(request, service, timings)
