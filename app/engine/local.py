"""Runs the engine in this process: loads the encoder in a thread, and watches the engine."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from l2v.app.engine.service import Service
from l2v.models.errors import ModelError

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder


@asynccontextmanager
async def local_engine(
    service: Service, encoder: "Encoder | None", on_failure: Callable[[str], None]
) -> AsyncIterator[None]:
    """Runs the engine of a service. Leave the context only after all accepted requests have finished.

    Args:
        service: the service, which opens when the encoder is loaded.
        encoder: the encoder to serve; None means to load the encoder that the settings name.
        on_failure: called with one sentence if the encoder cannot be loaded or its engine goes down. The call may come
            from another thread.
    """

    def load() -> None:
        try:
            from l2v.app.engine.startup import load_and_start  # imports torch

            load_and_start(service, encoder)
        except ModelError as error:
            on_failure(str(error))
        except BaseException as error:  # a Rust panic in the tokenizers library does not derive from Exception
            on_failure(f"the encoder could not be started ({type(error).__name__}: {error})")

    async def watch() -> None:
        on_failure(await service.wait_down())

    # A daemon thread, so that shutdown doesn't wait for loading to end.
    threading.Thread(target=load, name="loader", daemon=True).start()
    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.to_thread(service.close)
