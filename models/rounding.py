"""What linear layers of 8 bits have in common: how they take their inputs."""

from collections.abc import Callable
from weakref import ref

import torch

Rounded = tuple[torch.Tensor, torch.Tensor]


class Rounding:
    """Rounds inputs of linear layers, once where several of one model take the same: queries, keys and values do.

    Args:
        rounded: [T, in] → the same in 8 bits, and the step of each token, [T, 1].
    """

    def __init__(self, rounded: Callable[[torch.Tensor], Rounded]) -> None:
        self._round = rounded
        # Not the input itself, which would take memory until the next one comes.
        self._states: ref[torch.Tensor] | None = None
        self._rounded: Rounded

    def __call__(self, states: torch.Tensor) -> Rounded:
        # A compiled layer keeps nothing from one call to the next.
        if torch.compiler.is_compiling():
            return self._round(states)
        if self._states is None or self._states() is not states:
            self._rounded, self._states = self._round(states), ref(states)
        return self._rounded
