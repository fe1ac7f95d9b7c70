"""The inputs of the surfaces that take token ids where a text may stand."""

import asyncio
from typing import Any

from app.service import Service
from models import Input


async def texts_of(service: Service, given: Any, name: str, instruction: str, keep_end: bool = False) -> list[Input]:
    """A text, token ids, or a list of either, as inputs; raises `InvalidError` for ids that it does not have."""
    single = isinstance(given, str) or isinstance(given[0], int)
    service.check_count(1 if single else len(given), [name])
    items = [given] if single else given

    def read() -> list[Input]:
        texts = (
            item if isinstance(item, str) else service.decode(item, name if single else f"{name}[{index}]")
            for index, item in enumerate(items)
        )
        return [Input(text, instruction, keep_end) for text in texts]

    return read() if all(isinstance(item, str) for item in items) else await asyncio.to_thread(read)
