"""What linear layers of 8 bits have in common: how they take their inputs."""

from collections.abc import Callable

import torch
from torch.utils.weak import WeakTensorKeyDictionary

Rounded = tuple[torch.Tensor, torch.Tensor]


class Rounding:
    """Rounds inputs of linear layers, once where several of one model take the same: queries, keys and values do.

    Args:
        rounded: [T, in] → the same in 8 bits, and the step of each token, [T, 1].
    """

    def __init__(self, rounded: Callable[[torch.Tensor], Rounded]) -> None:
        self._round = rounded
        # For as long as the input is there.
        self._done: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    def __call__(self, states: torch.Tensor) -> Rounded:
        if (
            torch.compiler.is_compiling()
        ):  # then it becomes part of what stands before it, which a tensor kept could not
            return self._round(states)
        done: Rounded | None = self._done.get(states)  # type: ignore[no-untyped-call]
        if done is None:
            done = self._done[states] = self._round(states)
        return done
