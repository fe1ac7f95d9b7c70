"""The inputs of the surfaces that take token ids where a text may stand."""

from collections.abc import Sequence
from typing import Any

from app.prompts import Shared
from app.service import Service
from app.sides import Side
from models import Input


async def side_of(service: Service, given: Any, name: str, shared: Shared, keep_end: bool = False) -> Side:
    """A text, token ids, or a list of either, as inputs; raises `InvalidError` for ids that it does not have."""
    single = isinstance(given, str) or isinstance(given[0], int)
    service.check_count(1 if single else len(given), [name])
    items = [given] if single else given

    def read(places: Sequence[int]) -> list[Input]:
        texts = (
            items[i] if isinstance(items[i], str) else service.decode(items[i], name if single else f"{name}[{i}]")
            for i in places
        )
        return [Input(text, shared.text, keep_end) for text in texts]

    plain = all(isinstance(item, str) for item in items)
    inputs = read(range(len(items))) if plain else await service.tokenizers.run(read, range(len(items)))
    return Side(name, inputs, shared, single)
