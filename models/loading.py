"""Loads an encoder: checks the device, the dtype and the sources, and assembles the encoder from them."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from l2v.models.devices import check_dtype, select_device
from l2v.models.stack import resolve_stack
from l2v.models.templates import TemplateName
from l2v.models.types import Attention, DType, Pooling, Semantics

if TYPE_CHECKING:
    from l2v.models.declaration import Declaration
    from l2v.models.encoder import Encoder


def load(
    model: str,
    adapters: Sequence[str] = (),
    *,
    dtype: DType = "auto",
    device: str = "auto",
    semantics: Semantics | None = None,
    attention: Attention | None = None,
    pooling: Pooling | None = None,
    max_length: int | None = None,
    doc_max_length: int | None = None,
    skip_instruction: bool | None = None,
    template: TemplateName | None = None,
    ignore_tensors: Sequence[str] = (),
    lora_modules: Mapping[str, str] = MappingProxyType({}),
    prepack: bool = True,
    on_declared: "Callable[[Declaration, int], object]" = lambda declaration, width: None,
) -> "Encoder":
    """Loads an encoder and verifies it.

    Args:
        model: a base model, an LLM2Vec repository or a merged export, given as a Hub id (`id` or `id@revision`), a
            folder or a published short name.
        adapters: adapters to merge, in order, after those that come with the model.
        dtype: `auto`: bfloat16 on Ampere or newer GPUs and on CPUs with native bfloat16, else float32; `int8` (CPUs)
            and `fp8` (CUDA) quantize the linear layers and compute the rest as `auto` does.
        device: `auto`: CUDA if available, else the CPU; or any torch device.
        semantics: how an instruction and a text become tokens, and which tokens are pooled. `llm2vec` ignores the files
            of sentence-transformers.
        attention, pooling, max_length, doc_max_length, skip_instruction: override the sources' files (see
            `models.declaration`). Defaults if no file declares them: bidirectional, mean, 512, 400, True.
        template: a key of `models.templates.TEMPLATES`; default: the sources' setting, else the base model's template.
        ignore_tensors: patterns (`*`, `?`) of the names of tensors to leave out, besides those that no encoder needs.
        lora_modules: name → Hub id or folder, for LoRA adapters to apply without merging. Each input of a batch may
            name one of them, see `models.lora`.
        prepack: convert weights on the CPU to oneDNN's layout, after which they cannot be saved, trained or compiled.
        on_declared: a function that is called with the declaration and the number of dimensions before the weights are
            read. If it raises an error, loading stops.

    Raises:
        ModelError: if the model cannot be loaded or fails verification; the message is one sentence.
    """
    target = select_device(device)
    check_dtype(dtype, target)
    base, adapter_sources = resolve_stack(model, adapters)
    from l2v.models.assembly import assemble  # after the checks above, since importing transformers takes longer

    settings = {
        "semantics": semantics,
        "attention": attention,
        "pooling": pooling,
        "max_length": max_length,
        "doc_max_length": doc_max_length,
        "skip_instruction": skip_instruction,
        "template": template,
    }
    extras = (ignore_tensors, lora_modules)
    return assemble(base, adapter_sources, settings, dtype, target, *extras, prepack=prepack, on_declared=on_declared)
