"""Regional compilation: one decoder layer is compiled and used for all layers and all lengths.

Compiling a whole model of 30 layers would take ten times as long, and the result would be no faster.
"""

import copy

import torch
from transformers import PreTrainedModel

from l2v.models.batch import Batch
from l2v.models.encoder import Encoder
from l2v.models.errors import UnsupportedModelError, first_line
from l2v.models.forward import hidden_states

# Lengths of the sequences in the batches that teach the compiler which sizes are dynamic. The compiler treats two sizes
# as one if they are equal in the first batch. So the first batch has 18 + 19 = 37 tokens: no model has a dimension of
# 37.
_WARM_UP = ([18, 19], [8], [4, 9, 7, 6])
# On a GPU, kernels are tuned for the sizes of the first batch, so the first batch resembles real batches.
_WARM_UP_CUDA = ([509, 503, 499, 491], *_WARM_UP)


def compile_layers(encoder: Encoder) -> None:
    """Compiles the decoder's layers while the encoder keeps running, then swaps the compiled layers in.

    Afterwards, this process compiles nothing again, so that no batch waits for the compiler. A batch that the compiled
    layers do not support (a single token) runs eagerly.

    Raises:
        UnsupportedModelError: if the weights are prepacked or int8, LoRA modules are loaded, or compilation fails, for
            example because there is no C++ compiler. The encoder is then unchanged.
    """
    if encoder.prepacked:
        raise UnsupportedModelError("layers with prepacked or int8 weights cannot be compiled")
    if encoder.adapters.modules:
        raise UnsupportedModelError("layers cannot be compiled while LoRA modules are loaded: use one of the two")
    try:
        shadow, twins = _shadow(encoder.model)
        for twin in twins:
            twin.compile(dynamic=True)
        with torch.inference_mode(), torch.compiler.set_stance("default"):
            for lengths in _WARM_UP_CUDA if encoder.device.type == "cuda" else _WARM_UP:
                sizes = torch.tensor(lengths)
                ids = torch.arange(sum(lengths)) % encoder.model.config.vocab_size
                batch = Batch.of(ids, sizes, sizes, encoder.device)
                hidden_states(shadow, batch, causal=encoder.causal, windowed=encoder.declaration.windowed)
    except Exception as error:  # the compiler raises errors of many classes
        raise UnsupportedModelError(f"the layers cannot be compiled: {first_line(error)}") from error
    torch.compiler.set_stance("eager_on_recompile")
    for layer, twin in zip(_layers(encoder.model), twins, strict=True):
        layer._compiled_call_impl = twin._compiled_call_impl  # noqa: SLF001 - what `Module.compile` sets


def _layers(model: torch.nn.Module) -> torch.nn.ModuleList:
    return next(child for child in model.children() if isinstance(child, torch.nn.ModuleList))


def _shadow(model: PreTrainedModel) -> tuple[PreTrainedModel, list[torch.nn.Module]]:
    """A copy of the model, and the copies of its layers. The copies share the weights of the model."""
    twins = [copy.copy(layer) for layer in _layers(model)]
    name = next(name for name, child in model.named_children() if child is _layers(model))
    shadow = copy.copy(model)
    shadow._modules = dict(model._modules) | {name: torch.nn.ModuleList(twins)}  # noqa: SLF001
    return shadow, twins
