"""Requests to load and unload adapters, as in vLLM's API."""

from typing import Annotated, Any

from pydantic import Field, StrictStr

from l2v.app.http.schemas.fields import Rejected, StrictRequest
from l2v.app.settings import ModelName


class LoadRequest(StrictRequest):
    """An adapter to load."""

    lora_name: ModelName = Field(description="Name by which requests choose the adapter")
    lora_path: StrictStr = Field(
        min_length=1,
        max_length=1000,
        description="Folder below `runtime_adapters`, or a Hub id (`id` or `id@revision`) if "
        "`runtime_adapters_from_hub` is set",
    )
    load_inplace: Annotated[Any, Rejected("Unload the adapter of this name first", allowed=(False,))] = None


class UnloadRequest(StrictRequest):
    """An adapter to unload."""

    lora_name: StrictStr = Field(max_length=200, description="Name of the adapter")
    lora_int_id: Annotated[None, Rejected("Send 'lora_name' alone")] = None
