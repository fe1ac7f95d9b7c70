"""Regional compilation: one decoder layer is compiled, for all layers and all lengths.

Compiled whole, a model of 30 layers takes ten times as long to compile and is no faster.
"""

import copy

import torch
from transformers import PreTrainedModel

from l2v.models.batch import Batch
from l2v.models.encoder import Encoder, hidden_states
from l2v.models.errors import UnsupportedModelError, first_line

# Number of tokens of each sequence of the batches that show the compiler which sizes vary. Sizes that are equal in the
# first of them it takes for one and the same: so its 37 tokens, which are no measure of any model.
_WARM_UP = ([18, 19], [8], [4, 9, 7, 6])
# A GPU's kernels are chosen for the sizes of the first, which should be like those to come.
_WARM_UP_CUDA = ([509, 503, 499, 491], *_WARM_UP)


def compile_layers(encoder: Encoder) -> None:
    """Compiles the decoder's layers beside an encoder that may be running, and swaps them in when they are ready.

    From then on this process compiles nothing of its own accord, or a batch might wait for it: what a compiled layer
    was not made for (a batch of one single token) runs eagerly.

    Raises:
        UnsupportedModelError: if their weights are packed or of int8, or they cannot be compiled, for want of a C++
            compiler for example; nothing has changed.
    """
    if encoder.packed:
        raise UnsupportedModelError("layers of packed weights or of int8 are not compiled")
    try:
        shadow, twins = _shadow(encoder.model)
        for twin in twins:
            twin.compile(dynamic=True)
        with torch.inference_mode(), torch.compiler.set_stance("default"):
            for lengths in _WARM_UP_CUDA if encoder.device.type == "cuda" else _WARM_UP:
                sizes = torch.tensor(lengths)
                ids = torch.arange(sum(lengths)) % encoder.model.config.vocab_size
                hidden_states(shadow, Batch.of(ids, sizes, sizes, encoder.device))
    except Exception as error:  # of the compiler's many kinds
        raise UnsupportedModelError(f"the layers cannot be compiled: {first_line(error)}") from error
    torch.compiler.set_stance("eager_on_recompile")
    for layer, twin in zip(_layers(encoder.model), twins, strict=True):
        layer._compiled_call_impl = twin._compiled_call_impl  # noqa: SLF001 - what `Module.compile` sets


def _layers(model: torch.nn.Module) -> torch.nn.ModuleList:
    return next(child for child in model.children() if isinstance(child, torch.nn.ModuleList))


def _shadow(model: PreTrainedModel) -> tuple[PreTrainedModel, list[torch.nn.Module]]:
    """The model with layers of its own, which share its weights."""
    twins = [copy.copy(layer) for layer in _layers(model)]
    name = next(name for name, child in model.named_children() if child is _layers(model))
    shadow = copy.copy(model)
    shadow._modules = dict(model._modules) | {name: torch.nn.ModuleList(twins)}  # noqa: SLF001
    return shadow, twins
