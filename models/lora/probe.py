"""Checks of a new LoRA module by short forward passes.

The module must change the hidden states, and must change the output of each layer as merging the module would.
"""

from array import array
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from l2v.models.batch import Batch
from l2v.models.declaration import Declaration
from l2v.models.errors import AdapterError
from l2v.models.forward import hidden_states
from l2v.models.lora.layers import LoraLayers
from l2v.models.lora.products import Products
from l2v.models.lora.storage import Factors
from l2v.models.probe import TOKENS, Probe
from l2v.models.types import Encoding

# Each check runs this many rows without the module, and as many with it: 1 for the kernels of small batches, 9 for the
# kernels of large batches.
_ROWS = (1, 9)
# Maximum relative error of a layer's change, in epsilons of the dtype. The limit is never below _LEAST_LIMIT.
_MAX_UNITS, _LEAST_LIMIT = 8, 1e-4


@torch.inference_mode()
def run(decoder: PreTrainedModel, declaration: Declaration) -> None:
    """Runs one short row through the stack, without a LoRA module."""
    (row,) = Probe(decoder).sequences(1)
    batch = Batch.pack([Encoding(array("q", row), 1)], decoder.device)
    hidden_states(decoder, batch, causal=declaration.causal, windowed=declaration.windowed)


@torch.inference_mode()
def check(
    name: str,
    id_: int,
    factors: Mapping[str, Factors],
    decoder: PreTrainedModel,
    declaration: Declaration,
    layers: LoraLayers,
    products: Callable[[Batch], Products],
) -> str:
    """Runs the same token ids without the module and with it, in one batch.

    For each layer, compares what the module adds to zeros with what merging it adds, given the same input.

    Args:
        name, id_, factors: the module's name, id and weights.
        decoder, declaration, layers: the stack's decoder, declaration and linear layers.
        products: returns the products of a batch.

    Returns:
        The evidence, as a clause.

    Raises:
        AdapterError: if the change of the states is lost in rounding or not finite, or if a layer's change differs
            from the change that merging makes.
    """
    dtype = str(decoder.dtype).removeprefix("torch.")
    limit = max(_MAX_UNITS * torch.finfo(decoder.dtype).eps, _LEAST_LIMIT)
    moved = worst = 0.0
    for rows in _ROWS:
        ids = Probe(decoder).sequences(rows)
        pack = [Encoding(array("q", row), 1, adapter=adapter) for adapter in (0, id_) for row in ids]
        batch = Batch.pack(pack, decoder.device)
        added = products(batch)
        with _inputs(decoder, factors) as inputs, layers.applying(added):
            states = hidden_states(decoder, batch, causal=declaration.causal, windowed=declaration.windowed).float()
        base, own = states[: rows * TOKENS], states[rows * TOKENS :]
        if not own.isfinite().all():
            raise AdapterError(f"adapter {name} makes the model compute NaN or infinity in {dtype}: train it again")
        moved = max(moved, float((own - base).norm() / base.norm().clamp(min=1e-30)))
        for layer, given in inputs.items():
            error = _error(layer, given, factors[layer], layers, added, rows * TOKENS)
            if not error <= limit:
                raise AdapterError(
                    f"adapter {name} does not change {layer} as merging it would (off by {error:.1%}, but rounding in "
                    f"{dtype} explains at most {limit:.1%}): merge it instead (`adapters`)"
                )
            worst = max(worst, error)
    if not moved:
        raise AdapterError(f"adapter {name} changes no vector in {dtype}: its change is lost in rounding; use float32")
    return f"moves a text's states by {moved:.1%}; each layer's change equals its merge's, within {worst:.1e}"


def _error(
    layer: str, given: torch.Tensor, factors: Factors, layers: LoraLayers, products: Products, start: int
) -> float:
    """The relative error of what a module adds to tokens from `start` on; infinity if it changes earlier tokens."""
    expected = factors.apply(given[0, start:])
    output = given.new_zeros(1, given.shape[1], len(factors.b))
    products.add(layers.group_of[layer], layer, given, output)
    if output[0, :start].any():
        return torch.inf
    return float((output[0, start:].float() - expected).norm() / expected.norm().clamp(min=1e-30))


@contextmanager
def _inputs(decoder: PreTrainedModel, names: Collection[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Records the inputs of the named layers, [1, T, in], in the forward pass of the block."""
    inputs: dict[str, torch.Tensor] = {}

    def record(name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor]], None]:
        return lambda module, args: inputs.update({name: args[0]})

    handles = [decoder.get_submodule(name).register_forward_pre_hook(record(name)) for name in names]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
