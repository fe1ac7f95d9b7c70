"""The API of text-embeddings-inference (TEI), under /tei."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import Response
from fastapi.responses import PlainTextResponse

from l2v.app import __version__
from l2v.app.engine.inputs import InputGroup
from l2v.app.engine.served_models import ServedModel
from l2v.app.http import surfaces
from l2v.app.http.endpoints import Call
from l2v.app.http.errors import BY_STATUS, ERROR_CLASSES
from l2v.app.http.responses import TOKEN_BYTES, ChunkedList, joined_response, json_response, text_bytes, vector_bytes
from l2v.app.http.routes import openai, operations
from l2v.app.http.routes.dependencies import CallDep, ServiceDep
from l2v.app.http.routes.embedding import embed_group
from l2v.app.http.routes.texts import read_texts, text_group
from l2v.app.http.schemas import tei as schemas
from l2v.app.http.schemas.openai import EmbeddingsResponse
from l2v.app.http.surfaces import Access, access

# A text counts as this many numbers when a response is divided into chunks. So each text is a chunk of its own.
_WIDTH = 65_536

router = surfaces.tei(tags=["TEI"])
openai_router = surfaces.tei_openai(tags=["TEI"])
_rejections: dict[int | str, dict[str, Any]] = {
    status: {
        "model": schemas.TeiErrorBody,
        "description": " ".join(row.meaning for row in BY_STATUS.values() if row.tei[0] == status),
    }
    for status in sorted({row.tei[0] for row in ERROR_CLASSES.values()} - {405})
}


def _pick(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _rejections[status] for status in statuses}


def _example(value: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": value}}}}


async def _group(
    call: Call, model: ServedModel, inputs: Any, options: schemas.Options, name: str = "inputs"
) -> InputGroup:
    instruction = model.prompts.select(None, options.prompt_name)
    return await text_group(
        call, model, name, inputs, instruction, keep_end=options.keep_end, truncate=options.truncates
    )


@router.post("/embed", response_model=list[list[float]], responses=_rejections | _example([[0.5524, 0.7694, 0.3209]]))
async def embed(request: schemas.TeiEmbedRequest, call: CallDep) -> Response:
    """One embedding per input."""
    model = call.choose()
    group = await _group(call, model, request.inputs, request)
    return await embed_group(call, model, group, request, lambda rows, _: rows, truncate=request.truncates)


@router.post(
    "/embed_all",
    response_model=list[list[list[float]]],
    responses=_rejections | _example([[[0.1, 0.9, 0.4], [0.5, 0.3, 0.8]]]),
)
async def embed_all(request: schemas.EmbedAllRequest, call: CallDep) -> Response:
    """The hidden state of every token of each input, including special tokens and the instruction."""
    model = call.choose()
    group = await _group(call, model, request.inputs, request)
    states = await call.service.token_states(
        model,
        group,
        call.timings,
        truncate=request.truncates,
        reserve=lambda tokens, width: call.reserve(tokens * vector_bytes(width)),
    )
    with call.timings.stage("finish"):
        return await json_response([ChunkedList.of(row, row.shape[1]) for row in states])


@router.post("/similarity", response_model=list[float], responses=_rejections | _example([0.71, 0.02]))
async def similarity(request: schemas.TeiSimilarityRequest, call: CallDep) -> Response:
    """The cosine similarity of the source sentence to each other sentence; a named prompt applies to all sentences."""
    options, inputs = request.parameters or schemas.Options(), request.inputs
    model = call.choose()
    groups = [
        await _group(call, model, inputs.source_sentence, options, "inputs.source_sentence"),
        await _group(call, model, inputs.sentences, options, "inputs.sentences"),
    ]
    matrix, _ = await call.service.similarity(
        model,
        groups,
        call.timings,
        truncate=options.truncates,
        metric="cosine",
        reserve=lambda: call.reserve(vector_bytes(len(inputs.sentences))),
    )
    with call.timings.stage("finish"):
        return await json_response(matrix[0])


@router.post("", response_model=None, responses=_rejections, include_in_schema=False)
async def run_task(request: schemas.TaskRequest, call: CallDep) -> Response:
    """Runs the task that the form of the inputs implies: embedding, or the similarity of sentences."""
    if isinstance(request, schemas.TeiSimilarityRequest):
        return await similarity(request, call)
    return await embed(request, call)


@router.post(
    "/tokenize",
    response_model=list[list[schemas.Token]],
    responses=_rejections | _example([[{"id": 5, "text": "cat", "special": False, "start": 0, "stop": 3}]]),
)
async def tokenize(request: schemas.TeiTokenizeRequest, call: CallDep) -> Response:
    """The tokens of texts, without template. If a prompt is named, its instruction comes first."""
    model = call.choose()
    instruction = model.prompts.select(None, request.prompt_name)
    group = await text_group(call, model, "inputs", request.inputs, instruction)
    shown = call.service.tokenizers.show(
        model.profile,
        group,
        schemas.render,
        special=request.add_special_tokens,
        reserve=lambda tokens: call.reserve(TOKEN_BYTES * tokens),
    )

    async def parts() -> AsyncIterator[bytes]:
        separator = b"["
        async for text in shown:
            for part in (separator, *text):
                yield part
            separator = b","
        yield b"]"

    return await joined_response(parts())


@router.post("/decode", response_model=list[str], responses=_rejections | _example(["the cat sits on the mat"]))
async def decode(request: schemas.DecodeRequest, call: CallDep) -> Response:
    """The texts of token ids."""
    model = call.choose()
    texts = await read_texts(call, model, "ids", request.ids, skip_special=request.skip_special_tokens)
    call.reserve(sum(map(text_bytes, texts)))
    return await json_response(ChunkedList.of(texts, _WIDTH))


@router.get("/info", response_model=schemas.TeiInfo, responses=_pick(401, 503))
async def info(call: CallDep) -> dict[str, Any]:
    """The served model, in TEI's terms."""
    service, own = call.service, call.choose().describe()
    settings = service.settings
    return {
        "model_id": own["model"],
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
@router.get("/ping", response_class=PlainTextResponse, responses=_pick(503), include_in_schema=False)
@router.get("/health", response_class=PlainTextResponse, responses=_pick(503))
@access(Access.PROBE)
async def health(service: ServiceDep) -> Response:
    """Answers 200 while the service accepts requests, as TEI does."""
    service.check_open()
    return PlainTextResponse("")


router.add_api_route("/metrics", operations.metrics, response_class=PlainTextResponse, responses=_pick(401))


@openai_router.post("/embeddings", response_model=EmbeddingsResponse, responses=_rejections, include_in_schema=False)
@openai_router.post(
    "/v1/embeddings",
    response_model=EmbeddingsResponse,
    responses={status: rejection | {"model": schemas.TeiOpenaiErrorBody} for status, rejection in _rejections.items()},
)
async def embeddings(request: schemas.OpenaiRequest, call: CallDep) -> Response:
    """Embeds texts as the OpenAI API does, and truncates texts that are too long."""
    return await openai.respond(request, call)
