"""The arguments of handlers."""

from typing import Annotated, cast

from fastapi import Depends, Request

from l2v.app.engine.service import Service
from l2v.app.engine.timings import Timings


# Coroutines, since FastAPI would run plain functions in a thread.
async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _timings(request: Request) -> Timings:
    return cast(Timings, request.state.timings)


async def exposition(request: Request) -> bytes:
    """The metrics in Prometheus' text format. A Ray cluster overrides this (`l2v.app.cluster`)."""
    return (await _service(request)).metrics.render()


ServiceDep = Annotated[Service, Depends(_service)]
TimingsDep = Annotated[Timings, Depends(_timings)]
ExpositionDep = Annotated[bytes, Depends(exposition)]
