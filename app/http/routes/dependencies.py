"""What handlers are given."""

from typing import Annotated, cast

from fastapi import Depends, Request

from l2v.app.engine.service import Service
from l2v.app.http.telemetry import Timings


# Coroutines, as FastAPI runs what is none in another thread.
async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _timings(request: Request) -> Timings:
    return cast(Timings, request.state.timings)


async def exposition(request: Request) -> bytes:
    """The metrics in Prometheus' text format. A cluster has others in its place (`app/cluster.py`)."""
    return (await _service(request)).metrics.render()


ServiceDep = Annotated[Service, Depends(_service)]
TimingsDep = Annotated[Timings, Depends(_timings)]
ExpositionDep = Annotated[bytes, Depends(exposition)]
