"""Loading an encoder: resolve the sources, check their files, merge the adapters, verify the result."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from l2v.models import checksums
from l2v.models.allocator import keep_freed_memory, unmap_weights
from l2v.models.declaration import base_name, declared_settings, merge_settings
from l2v.models.decoder import check_max_length, move, read_config, read_decoder
from l2v.models.devices import select_device, select_dtype
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError
from l2v.models.prepacking import prepack as prepack_linears
from l2v.models.quantization import fp8, int8
from l2v.models.reference_vector import ReferenceVector
from l2v.models.sources import Source, label
from l2v.models.stack import resolve_stack
from l2v.models.templates import TEMPLATES, TemplateName, eos_for
from l2v.models.tokenization import Tokenization
from l2v.models.tokenizer import read_backend, read_tokenizer
from l2v.models.types import DType, Pooling
from l2v.models.verify import verify, verify_quantization

_QUANTIZE = {"int8": int8.quantize, "fp8": fp8.quantize}


def load(
    model: str,
    adapters: Sequence[str] = (),
    *,
    dtype: DType = "auto",
    device: str = "auto",
    pooling: Pooling | None = None,
    max_length: int | None = None,
    doc_max_length: int | None = None,
    skip_instruction: bool | None = None,
    template: TemplateName | None = None,
    prepack: bool = True,
) -> Encoder:
    """Loads an encoder and verifies that it is one.

    Args:
        model: a base model, an LLM2Vec repository or a merged export: a Hub id (`id` or `id@revision`), a folder or a
            published short name.
        adapters: adapters to merge, in order, after those that come with the model.
        dtype: `auto`: bfloat16 on GPUs from Ampere on and on CPUs with native bfloat16, else float32; `int8` (CPUs) and
            `fp8` (CUDA) quantize the linear layers and compute the rest as `auto` does.
        device: `auto`: CUDA if available, else the CPU; or any torch device.
        pooling, max_length, doc_max_length, skip_instruction: default: the setting in the sources' `l2v.json` or
            `llm2vec_config.json`, the last source taking precedence, else mean, 512, 400, True.
        template: a key of `models.templates.TEMPLATES`; default: the sources' setting, else the base model's.
        prepack: convert weights on the CPU to oneDNN's layout, after which they cannot be saved, trained or compiled.

    Raises:
        ModelError: if the model cannot be loaded or fails verification; the message is one sentence.
    """
    base, adapter_sources = resolve_stack(model, adapters)
    checked_files = sum(checksums.check(source) for source in [base, *adapter_sources])
    declared = declared_settings([base, *adapter_sources])
    target = select_device(device)
    config = read_config(base)
    decoder = _merge(read_decoder(base, config, select_dtype(dtype, target)), adapter_sources, target)
    verify(decoder)
    quantization = _convert_linears(decoder, dtype, prepack=prepack)
    if target.type == "cpu":
        keep_freed_memory()  # only now, so that the memory used for loading is returned

    # Like the reference, prefer the tokenizer of the repository that the user named.
    tokenizer_source = next(source for source in [*adapter_sources[:1], base] if source.has_tokenizer or source is base)
    tokenizer = read_tokenizer(tokenizer_source)
    base_id = declared.get("base") or base_name(base, adapter_sources)
    explicit = {
        "pooling_mode": pooling,
        "max_length": max_length,
        "doc_max_length": doc_max_length,
        "skip_instruction": skip_instruction,
        "template": template,
    }
    settings = merge_settings(explicit, declared, base_id)
    tokenization = _tokenization(tokenizer_source, tokenizer, config, settings)
    encoder = Encoder(
        model=decoder,
        tokenizer=tokenizer,
        tokenization=tokenization,
        pooling=settings["pooling_mode"],
        base=label(base_id),
        template=settings["template"],
        provenance=(base.read("l2v.json").get("sources") or [base.describe()])
        + [s.describe() for s in adapter_sources],
    )
    return replace(encoder, evidence=(*_evidence(encoder, checked_files, base, adapter_sources), *quantization))


def _merge(decoder: PreTrainedModel, adapters: Sequence[Source], device: torch.device) -> PreTrainedModel:
    """Merges the adapters on the CPU and moves the result to its device."""
    if adapters:
        from l2v.models.adapters import merge  # exports load without peft

        if device.type == "cpu":
            unmap_weights(decoder)
        for adapter in adapters:
            decoder = merge(decoder, adapter)
    return move(decoder, device)


def _convert_linears(decoder: PreTrainedModel, dtype: DType, *, prepack: bool) -> list[str]:
    """Quantizes or prepacks the linear layers. Returns the evidence about quantization."""
    if quantize := _QUANTIZE.get(dtype):
        cosine = verify_quantization(decoder, quantize, dtype)
        return [f"{dtype}: hidden states have a cosine of at least {cosine:.4f} to those before quantization"]
    if prepack:
        prepack_linears(decoder)
    return []


def _tokenization(
    source: Source, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, settings: dict[str, Any]
) -> Tokenization:
    """Builds the tokenization; raises `ModelError` for settings that the model or its tokenizer does not support."""
    _check_choice("template", settings["template"], TEMPLATES)
    _check_choice("pooling", settings["pooling_mode"], get_args(Pooling))
    template = TEMPLATES[settings["template"]]
    tokenization = Tokenization(
        tokenizer=read_backend(source, tokenizer),
        template=template,
        eos=eos_for(template, config.model_type) if settings["pooling_mode"] == "eos_token" else "",
        max_length=settings["max_length"],
        doc_max_length=settings["doc_max_length"],
        skip_instruction=settings["skip_instruction"],
    )
    check_max_length(config, tokenization.max_length)
    if (tokens := tokenization.tokenizer.get_vocab_size()) > config.vocab_size:
        raise ModelError(
            f"the tokenizer of {source.name} has {tokens} tokens but the model has {config.vocab_size}: they do not "
            "belong together"
        )
    if settings["pooling_mode"] == "bos_token" and tokenization.leading == 0:
        raise ModelError(f"pooling bos_token requires a beginning token, which the tokenizer of {source.name} lacks")
    return tokenization


def _check_choice(setting: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ModelError(f"{setting} {value} is unknown: use one of {', '.join(choices)}")


def _evidence(encoder: Encoder, checked_files: int, base: Source, adapters: list[Source]) -> tuple[str, ...]:
    """The results of all checks, including that of the reference vector; raises `ModelError` if that differs."""
    reference = ReferenceVector.read([base, *adapters][-1])
    merged = [
        f"{s.label} (for {label(s.read('adapter_config.json').get('base_model_name_or_path') or '?')})"
        for s in adapters
    ]
    return (
        f"files: {checked_files} match their checksums" if checked_files else "files: no checksums recorded",
        "weights: all finite",
        f"adapters: {', '.join(merged)} fit and change the weights" if merged else "adapters: none",
        "attention: bidirectional, without leaks between the sequences of a batch",
        f"reference vector: {reference.compare(encoder) if reference else 'none recorded'}",
    )
