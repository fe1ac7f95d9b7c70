"""Dynamic quantization of the inputs of linear layers, shared by layers that have the same input."""

from collections.abc import Callable
from weakref import ref

import torch

Quantized = tuple[torch.Tensor, torch.Tensor]


class InputQuantizer:
    """Quantizes the inputs of a model's linear layers.

    Keeps the last result, since query, key and value projections share an input, and so do gate and up projections.

    Args:
        quantize_rows: [T, in] → the values in 8 bits, and the scale of each token, [T, 1].
    """

    def __init__(self, quantize_rows: Callable[[torch.Tensor], Quantized]) -> None:
        self._quantize_rows = quantize_rows
        # A weak reference, so that the input's memory is freed as soon as the layers are done with it.
        self._last_input: ref[torch.Tensor] | None = None
        self._last_result: Quantized

    def __call__(self, states: torch.Tensor) -> Quantized:
        # Compiled layers cannot keep state between calls.
        if torch.compiler.is_compiling():
            return self._quantize_rows(states)
        if self._last_input is None or self._last_input() is not states:
            self._last_result, self._last_input = self._quantize_rows(states), ref(states)
        return self._last_result
