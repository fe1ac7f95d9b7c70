"""The inputs of the surfaces that take token ids where a text may stand."""

import asyncio
from typing import Any

from app.service import Service
from models import Input


async def texts_of(service: Service, given: Any, name: str, instruction: str, keep_end: bool = False) -> list[Input]:
    """A text, token ids, or a list of either, as inputs; raises `InvalidError` for ids that it does not have."""
    single = isinstance(given, str) or isinstance(given[0], int)
    service.check_count(1 if single else len(given), [name])
    inputs = []
    for index, item in enumerate([given] if single else given):
        text = item
        if not isinstance(item, str):
            text = await asyncio.to_thread(service.decode, item, name if single else f"{name}[{index}]")
        inputs.append(Input(text, instruction, keep_end))
    return inputs
