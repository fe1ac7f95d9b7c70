"""Builds the application from its parts, and starts and stops them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from l2v.app import __version__
from l2v.app.engine.errors import InvalidError, NotFoundError, ServiceError
from l2v.app.engine.local import local_engine
from l2v.app.engine.service import Service
from l2v.app.http.auth import Auth
from l2v.app.http.endpoints import Dispatcher
from l2v.app.http.errors import ERROR_CLASSES, MethodError
from l2v.app.http.limits import RequestLimits
from l2v.app.http.routes import adapters, cohere, native, openai, operations, pages, tei
from l2v.app.http.surfaces import Targets
from l2v.app.http.telemetry import Telemetry
from l2v.app.http.tracing import Tracing
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder

_API = (native.router, openai.router, cohere.router, tei.router, tei.openai_router, operations.router)


def create_app(
    settings: Settings, encoder: "Encoder | None" = None, on_failure: Callable[[str], None] = lambda reason: None
) -> FastAPI:
    """Builds the application with an engine in this process.

    Args:
        settings: all settings.
        encoder: the encoder to serve. By default, a thread loads the encoder that the settings name.
        on_failure: a function that gets one sentence if the encoder cannot be loaded or its engine goes down.
    """
    service = Service(settings, Metrics())
    return build_app(service, local_engine(service, encoder, on_failure))


def build_app(service: Service, engine: AbstractAsyncContextManager[None]) -> FastAPI:
    """Builds the application of a service.

    Args:
        service: the service.
        engine: a context manager that runs the engine. The application enters it before the first request and exits it
            after the last request.
    """
    settings, metrics = service.settings, service.metrics
    auth = Auth(settings)
    tracing = Tracing(str(settings.otlp_endpoint)) if settings.otlp_endpoint else None
    optional = [(adapters.router, settings.runtime_adapters), (pages.playground, settings.playground)]
    routers = [*_API, pages.docs, *(router for router, enabled in optional if enabled)]
    targets = Targets(routers, service.models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine:
            yield
        if tracing:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="l2v",
        version=__version__,
        summary="LLM2Vec embeddings over HTTP",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers={ServiceError: _service_error, HTTPException: _http_error},
    )
    app.state.service, app.state.targets = service, targets
    # `RequestLimits` checks the key; this dependency only documents in OpenAPI that a key is required.
    keyed = [Depends(HTTPBearer(auto_error=False))] if auth.enabled else []
    for router in routers:
        app.include_router(router, dependencies=keyed)
    _describe(app, targets, auth)
    app.add_middleware(Dispatcher, service=service)
    bodies = service.usage.body_bytes
    app.add_middleware(RequestLimits, auth=auth, settings=settings, admit=service.admit, bodies=bodies, metrics=metrics)
    app.add_middleware(Telemetry, metrics=metrics, targets=targets, trace=tracing.record if tracing else None)
    if settings.cors_origins:
        # This layer is outside those above, so that rejections and errors get CORS headers too and pages can read them.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "Server-Timing", "Warning", "X-Request-Id"],
        )
    if tracing:
        tracing.instrument(app, targets)
    return app


def _describe(app: FastAPI, targets: Targets, auth: Auth) -> None:
    """Removes from each operation in OpenAPI what does not apply to it: the status 422, or the need for a key."""
    for path, methods in app.openapi()["paths"].items():
        target = targets.find(path)
        for operation in methods.values():
            if target.surface.to_response(InvalidError("")).status_code != 422:
                operation["responses"].pop("422", None)
            if not auth.requires_key(target):
                operation.pop("security", None)
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own bodies for 422
        app.openapi()["components"]["schemas"].pop(unused, None)


async def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    response: Response = request.state.target.surface.to_response(error)
    return response


async def _http_error(request: Request, error: Exception) -> Response:
    """Reports Starlette's own errors as 404 or 405, in the form of the API that the path belongs to."""
    assert isinstance(error, HTTPException)
    kind, path = MethodError if error.status_code == 405 else NotFoundError, request.scope["path"]
    if kind is NotFoundError and (unknown := request.app.state.targets.unknown_model(path)):
        return await _service_error(request, unknown)
    misdirected = request.method == "POST" if path == "/" else kind is NotFoundError
    hint = request.app.state.targets.suggest(path) if misdirected else ""
    reason = ERROR_CLASSES[kind].meaning if kind is MethodError else "There is no such path."
    response = await _service_error(request, kind(f"{reason} {hint}".strip(), "path"))
    if kind is MethodError:
        response.headers["Allow"] = ", ".join(sorted(request.state.target.methods))
    return response
