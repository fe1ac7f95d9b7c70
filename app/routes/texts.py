"""The inputs of the surfaces that take token ids where a text may stand."""

from typing import Any

from app.prompts import Shared
from app.service import Service
from app.sides import Side
from models import Input


async def side_of(service: Service, given: Any, name: str, shared: Shared, keep_end: bool = False) -> Side:
    """A text, token ids, or a list of either, as inputs; raises `InvalidError` for ids that it does not have."""
    items = named(service, given, name)
    ids = {param: item for param, item in items.items() if not isinstance(item, str)}
    texts = items | dict(zip(ids, await service.decode(ids), strict=True))
    return Side(name, [Input(text, shared.text, keep_end) for text in texts.values()], shared, name in items)


def named(service: Service, given: Any, name: str) -> dict[str, Any]:
    """A text, token ids, or a list of either, each under what the caller calls it."""
    if isinstance(given, str) or isinstance(given[0], int):
        return {name: given}
    service.check_count(len(given), [name])
    return {f"{name}[{index}]": item for index, item in enumerate(given)}
