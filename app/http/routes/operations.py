"""Endpoints for operators and probes."""

from typing import Any

import prometheus_client
from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse

from l2v.app.engine.lifecycle import State
from l2v.app.engine.served_models import LOADING_SECONDS
from l2v.app.engine.service import Service
from l2v.app.http import surfaces
from l2v.app.http.errors import responses
from l2v.app.http.routes.dependencies import ExpositionDep, ServiceDep
from l2v.app.http.schemas.operations import InfoResponse, StateResponse
from l2v.app.http.surfaces import Access, access

router = surfaces.native(tags=["operations"])


def _closed(description: str) -> dict[int | str, dict[str, Any]]:
    return {503: {"model": StateResponse, "description": description}}


@router.get("/info", response_model=InfoResponse, responses=responses(401, 503))
async def info(service: ServiceDep) -> JSONResponse:
    """The base, its pooling and sources, the limits of a request, and all models."""
    return JSONResponse(service.info())


@router.get("/health", response_model=StateResponse, responses=_closed("The engine is dead or hangs: restart l2v."))
@access(Access.PROBE)
async def health(service: ServiceDep) -> JSONResponse:
    """Liveness: whether the engine works, judged by its heartbeat."""
    return _state(service, service.state is not State.DOWN)


@router.get("/ready", response_model=StateResponse, responses=_closed("Loading, draining or down: send no requests."))
@access(Access.PROBE)
async def ready(service: ServiceDep) -> JSONResponse:
    """Readiness: whether the service accepts requests."""
    return _state(service, service.state is State.READY)


@router.get("/metrics", response_class=PlainTextResponse, responses=responses(401))
@access(Access.METRICS)
async def metrics(exposition: ExpositionDep) -> Response:
    """Prometheus metrics."""
    return Response(exposition, media_type=prometheus_client.CONTENT_TYPE_LATEST)


def _state(service: Service, good: bool) -> JSONResponse:
    headers = {"Retry-After": str(LOADING_SECONDS)} if service.state is State.LOADING and not good else None
    return JSONResponse({"status": str(service.state)}, 200 if good else 503, headers)
