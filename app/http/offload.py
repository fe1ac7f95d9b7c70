"""Work on vectors: off the event loop where that would be held up."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# Numbers that are worked on sooner than another thread begins.
_FEW = 32_768


async def offload(numbers: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs `function` in a thread if it works on many numbers, else directly."""
    if numbers <= _FEW:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
