"""The application: what is put together, and its life from loading to draining."""

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from l2v.app import __version__
from l2v.app.engine.service import Service
from l2v.app.http.auth import Keys
from l2v.app.http.errors import (
    TABLE,
    EmptyError,
    InvalidError,
    MalformedError,
    NotFoundError,
    ServiceError,
    TooLargeError,
    answer,
)
from l2v.app.http.limits import Guard
from l2v.app.http.routes import native, openai, operations, pages, tei
from l2v.app.http.schemas.inputs import param_of
from l2v.app.http.telemetry import Metrics, Telemetry
from l2v.app.http.tracing import Tracing
from l2v.app.settings import Settings
from l2v.models import Encoder, ModelError
from l2v.models.compilation import compile_layers

logger = logging.getLogger(__name__)

# Paths that are answered and stand in no list.
_UNLISTED = ("/", "/docs", "/openapi.json", "/tei", "/tei/", "/tei/ping", "/tei/embeddings")
# Where pydantic's own words would puzzle a caller.
_MESSAGES = {
    "extra_forbidden": "unknown field",
    "missing": "is required",
    "model_attributes_type": "must be a JSON object",
    "too_short": "must not be empty",
}
_ROWS: dict[str, type[ServiceError]] = {"too_short": EmptyError, "blank": EmptyError, "too_many": TooLargeError}


def create_app(
    settings: Settings, encoder: Encoder | None = None, on_failure: Callable[[str], None] = lambda reason: None
) -> FastAPI:
    """Puts the service together.

    Args:
        settings: all of them.
        encoder: serve this one; where None, the one that the settings name is loaded while the port is open already.
        on_failure: called with one sentence when the encoder cannot be loaded, or its engine goes down.
    """
    metrics = Metrics()
    service = Service(settings, metrics)
    given = settings.read_keys()
    keys = Keys(given, settings.protect_metrics, settings.protect_docs)
    tracing = Tracing(str(settings.otlp_endpoint)) if settings.otlp_endpoint else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # A daemon thread, so that a stop in the middle of loading does not wait for its end.
        threading.Thread(
            target=_start, args=(service, settings, encoder, on_failure), name="loader", daemon=True
        ).start()
        watch = asyncio.create_task(_watch(service, on_failure))
        yield
        watch.cancel()
        await asyncio.to_thread(service.close)
        if tracing:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="l2v",
        version=__version__,
        summary="LLM2Vec embeddings over HTTP",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    # The guard has checked the key by then; this tells the API's readers that there is one.
    keyed = [Depends(HTTPBearer(auto_error=False))] if given else []
    for router in (native.router, openai.router, tei.router, operations.router):
        app.include_router(router, dependencies=keyed)
    app.include_router(pages.docs)
    if settings.playground:
        app.include_router(pages.playground)
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(
        Guard,
        keys=keys,
        max_body_bytes=settings.max_body_bytes,
        max_total_body_bytes=settings.max_total_body_bytes,
        timeout=settings.request_timeout,
        admit=service.admit,
        metrics=metrics,
    )
    _prune(app, keys)
    routes = frozenset({*app.openapi()["paths"], *_UNLISTED})
    app.add_middleware(Telemetry, metrics=metrics, routes=routes, trace=tracing.record if tracing else None)
    if settings.cors_origins:  # around all else, so that pages can read refusals and bugs too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "Server-Timing", "X-Request-Id"],
        )
    if tracing:
        tracing.instrument(app, routes)
    return app


def _prune(app: FastAPI, keys: Keys) -> None:
    """Takes out of the promises what a surface says with another status, and the key where none is wanted."""
    for path, operations in app.openapi()["paths"].items():
        for operation in operations.values():
            if path.startswith(("/v1/", "/tei")):
                operation["responses"].pop("422", None)
            if not keys.guard(path):
                operation.pop("security", None)


def _start(service: Service, settings: Settings, encoder: Encoder | None, on_failure: Callable[[str], None]) -> None:
    try:
        encoder = encoder or settings.load(packed=not settings.compile)
        _freeze()
        service.start(encoder)
        logger.info("ready", extra={"model": service.model})
        if settings.compile:
            _compile(service.encoder)
    except ModelError as error:
        on_failure(str(error))
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        on_failure(f"the encoder could not be started ({type(error).__name__}: {error})")


def _freeze() -> None:
    """What is loaded stays. Looking through it all, the garbage collector would stop every request for 0.3 s."""
    gc.collect()
    gc.freeze()
    # The next full collection waits for a quarter of the objects that the last one left. With those that are frozen now
    # that would be a hundred thousand, among them the bodies that were no JSON, which FastAPI's errors hold in cycles.
    gc.collect()


def _compile(encoder: Encoder) -> None:
    try:
        compile_layers(encoder)
    except ModelError as error:
        logger.warning("serving goes on without compilation", extra={"reason": str(error)})
    else:
        _freeze()
        logger.info("compiled")


async def _watch(service: Service, on_failure: Callable[[str], None]) -> None:
    on_failure(await service.wait_down())


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return answer(error, request.url.path)


async def _validation_error(request: Request, error: Exception) -> Response:
    """One error of the table for pydantic's list: the first, which names its place."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    if first["type"] == "json_invalid":
        return await _service_error(request, MalformedError("the body is not valid JSON", "body"))
    param = param_of(tuple(first["loc"]))
    message = _MESSAGES.get(first["type"], first["msg"])
    row = _ROWS.get(first["type"], InvalidError)
    return await _service_error(request, row(message, param or "body"))


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, in our shape."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return await _service_error(request, MalformedError("the body is not valid JSON", "body"))
    row = TABLE.get(error.status_code, NotFoundError)
    return await _service_error(request, row(row.meaning, "path", dict(error.headers or {})))
