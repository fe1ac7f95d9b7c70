"""The arguments of handlers."""

from typing import Annotated, cast

from fastapi import Depends, Request

from l2v.app.engine.service import Service
from l2v.app.http.endpoints import Call


# These are coroutines, since FastAPI would run plain functions in a thread.
async def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _call(request: Request) -> Call:
    return Call(request.app.state.service, request.scope["state"])


async def exposition(request: Request) -> bytes:
    """The metrics in Prometheus' text format. Overridden in `l2v.app.cluster` and `l2v.app.workers`."""
    return (await _service(request)).metrics.render()


ServiceDep = Annotated[Service, Depends(_service)]
CallDep = Annotated[Call, Depends(_call)]
ExpositionDep = Annotated[bytes, Depends(exposition)]
