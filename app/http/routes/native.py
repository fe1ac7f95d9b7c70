"""The native API: /embed, /similarity, /tokenize and /prompts."""

from typing import Any

from fastapi import Response

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.inputs import DefaultInstruction, EmbeddedGroup, InputGroup
from l2v.app.engine.tokenization import truncated
from l2v.app.http import surfaces
from l2v.app.http.errors import responses
from l2v.app.http.responses import TOKEN_BYTES, ChunkedList, json_response, match_bytes, matches, vector_bytes
from l2v.app.http.routes.dependencies import CallDep, ServiceDep
from l2v.app.http.routes.embedding import embed_group
from l2v.app.http.schemas import native as schemas
from l2v.app.http.schemas.inputs import read_inputs

router = surfaces.native(tags=["embeddings"])
_rejections = responses(400, 401, 404, 413, 415, 422, 429, 500, 503, 504)


@router.post("/embed", response_model=schemas.EmbedResponse, responses=_rejections)
async def embed(request: schemas.EmbedRequest, call: CallDep) -> Response:
    """Embeds texts, each with its instruction.

    The model attends to the instruction; its tokens are excluded from pooling. Embeddings have the order of the inputs.
    """
    model = call.choose(request.model)
    group = _group("inputs", request.inputs, model.prompts.select(request.instruction, request.prompt_name))

    def content(rows: ChunkedList, embedded: EmbeddedGroup) -> dict[str, Any]:
        return {
            "model": model.name,
            "dimensions": request.dimensions or model.profile.dimensions,
            "embeddings": rows,
            "tokens": embedded.tokens,
            "truncated": embedded.truncated,
        }

    return await embed_group(call, model, group, request, content, truncate=request.truncate)


@router.post("/similarity", response_model=schemas.SimilarityResponse, responses=_rejections)
async def similarity(request: schemas.SimilarityRequest, call: CallDep) -> Response:
    """Compares queries with documents, each with its own instruction."""
    service, prompts = call.service, (model := call.choose(request.model)).prompts
    instruction = prompts.select(request.query_instruction, request.query_prompt_name, "query")
    groups = [_group("queries", request.queries, instruction)]
    given, prompt_name = request.document_instruction, request.document_prompt_name
    if request.documents is not None:
        instruction = prompts.select(given, prompt_name, "document")
        groups.append(_group("documents", request.documents, instruction))
    elif given is not None or prompt_name is not None:
        raise InvalidError(
            "requires documents; without them, the queries are compared with each other",
            "document_prompt_name" if given is None else "document_instruction",
        )
    columns = len(groups[-1].inputs)
    row = vector_bytes(columns) if request.top_k is None else match_bytes(min(request.top_k, columns))
    size = len(groups[0].inputs) * row + vector_bytes(columns)
    matrix, embedded = await service.similarity(
        model,
        groups,
        call.timings,
        truncate=request.truncate,
        metric=request.metric,
        reserve=lambda: call.reserve(size),
    )
    with call.timings.stage("finish"):
        named = {group.name: each for group, each in zip(groups, embedded, strict=True)}
        scores = {"scores": ChunkedList.of(matrix, columns)}
        return await json_response(
            {
                "model": model.name,
                **(scores if request.top_k is None else {"results": matches(matrix, request.top_k)}),
                "tokens": {name: each.tokens for name, each in named.items()},
                "truncated": {name: each.truncated for name, each in named.items()},
            }
        )


@router.post("/tokenize", response_model=schemas.TokenizeResponse, responses=_rejections)
async def tokenize(request: schemas.TokenizeRequest, call: CallDep) -> Response:
    """The tokens that the model gets for each input, with what each one is part of and whether it is pooled.

    Truncates as /embed does.
    """
    service, model = call.service, call.choose(request.model)
    group = _group("inputs", request.inputs, model.prompts.select(request.instruction, request.prompt_name))
    encodings = await service.tokenize(model, group, call.timings, truncate=request.truncate)
    call.reserve(TOKEN_BYTES * sum(map(len, encodings)))
    with call.timings.stage("finish"):
        rows = await service.tokenizers.describe(model.profile, group, encodings, schemas.render)
        return await json_response(
            {
                "model": model.name,
                "tokens": ChunkedList.of(rows, TOKEN_BYTES * model.profile.tokenization.max_length),
                "truncated": truncated(encodings),
            }
        )


@router.get("/prompts", responses=responses(401))
async def prompts(service: ServiceDep) -> schemas.PromptsResponse:
    """The named prompts of the base; `query` and `document` are the defaults of /similarity."""
    return schemas.PromptsResponse(prompts=service.prompts.by_name)


def _group(name: str, inputs: Any, instruction: DefaultInstruction) -> InputGroup:
    return InputGroup(name, read_inputs(inputs, instruction.text), instruction, single=not isinstance(inputs, list))
