"""Work on vectors: beside the event loop where it would be held up."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Numbers that are worked on sooner than another thread begins.
_FEW = 32_768


async def beside(numbers: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What a function gives that works on so many numbers: in a thread of its own, unless they are few."""
    if numbers <= _FEW:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
