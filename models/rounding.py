"""What linear layers of 8 bits have in common: how they take their inputs."""

from collections.abc import Callable

import torch


class Rounding:
    """Rounds inputs of linear layers, once where several of one model take the same: queries, keys and values do.

    Args:
        rounded: [T, in] → the same in 8 bits, and the step of each token, [T, 1].
    """

    def __init__(self, rounded: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._round = rounded
        self._states: torch.Tensor | None = None
        self._rounded: tuple[torch.Tensor, torch.Tensor]

    def __call__(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if torch.compiler.is_compiling():  # which sees by itself what is the same
            return self._round(states)
        # The tensor is held, so no other can be taken for it.
        if states is not self._states:
            self._rounded, self._states = self._round(states), states
        return self._rounded
