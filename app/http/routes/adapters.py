"""The endpoints that change the adapters while the service runs. They exist only if `runtime_adapters` is set."""

from fastapi import Response
from fastapi.responses import PlainTextResponse

from l2v.app.http import surfaces
from l2v.app.http.errors import responses
from l2v.app.http.routes.dependencies import CallDep
from l2v.app.http.schemas.adapters import LoadRequest, UnloadRequest

router = surfaces.openai(tags=["adapters"])
_rejections = responses(400, 401, 413, 415, 429, 500, 503, 504)


@router.post("/load_lora_adapter", response_class=PlainTextResponse, responses=_rejections)
async def load(request: LoadRequest, call: CallDep) -> Response:
    """Loads an adapter, which stays until it is unloaded or the service restarts. If loading fails, nothing changes."""
    assert call.service.adapters is not None  # the service is open
    await call.service.adapters.load(request.lora_name, request.lora_path)
    return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' added successfully.")


@router.post("/unload_lora_adapter", response_class=PlainTextResponse, responses=_rejections | responses(404))
async def unload(request: UnloadRequest, call: CallDep) -> Response:
    """Unloads an adapter. Requests that use it finish first; new ones are rejected at once."""
    assert call.service.adapters is not None
    await call.service.adapters.unload(request.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")
