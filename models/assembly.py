"""Assembles an encoder: checks the files of its sources, merges the adapters, and verifies the result."""

import filecmp
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from transformers import PreTrainedConfig, PreTrainedModel

from l2v.models import checksums
from l2v.models.allocator import keep_freed_memory, unmap_weights
from l2v.models.declaration import Declaration
from l2v.models.decoder import move, read_config, read_decoder
from l2v.models.devices import select_dtype
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError
from l2v.models.head import read_head
from l2v.models.lengths import check_max_length, check_window
from l2v.models.lora.adapters import Adapters
from l2v.models.lora.reading import ModuleReader
from l2v.models.pooling_checks import check_pooling
from l2v.models.prepacking import prepack as prepack_linears
from l2v.models.progress import stage
from l2v.models.quantization import fp8, int8
from l2v.models.reference_vector import ReferenceVector
from l2v.models.resolution import base_name, read_declaration, tokenizer_source
from l2v.models.sources import Source, label
from l2v.models.tokenization import Tokenization
from l2v.models.tokenizer import ModelTokenizer, read_tokenizer
from l2v.models.tokenizer_checks import check_vocabulary
from l2v.models.types import DType
from l2v.models.verify import verify, verify_quantization

logger = logging.getLogger(__name__)

_QUANTIZE = {"int8": int8.quantize, "fp8": fp8.quantize}


def assemble(
    base: Source,
    adapters: Sequence[Source],
    settings: Mapping[str, Any],
    dtype: DType,
    device: torch.device,
    ignore_tensors: Sequence[str],
    lora_modules: Mapping[str, str],
    *,
    prepack: bool,
    on_declared: Callable[[Declaration, int], object],
) -> Encoder:
    """Assembles an encoder from its sources and verifies it.

    Args:
        base: a base model or an export.
        adapters: the adapters to merge, in order.
        settings: the caller's settings by name. A setting that is not None overrides what the sources declare.
        dtype, ignore_tensors, lora_modules, prepack, on_declared: see `models.load`.
        device: the device of the encoder.

    Raises:
        ModelError: if the encoder cannot be assembled or fails verification.
    """
    with checksums.checking([base, *adapters]) as checked:
        named = tokenizer_source(base, adapters)
        config = read_config(base)
        positions = getattr(config, "max_position_embeddings", None)
        declaration = read_declaration(base, adapters, settings, positions, named)
        check_max_length(config, declaration)
        head = read_head(declaration, base, config.hidden_size)
        on_declared(declaration, head.width(config.hidden_size))
        tokenizer = _read_tokenizer(named, config, whole=not adapters)

        projections = [layer.folder for layer in declaration.layers]
        decoder, left_out = read_decoder(base, config, select_dtype(dtype, device), ignore_tensors, projections)
        decoder, left_out_of_adapters = _merge(decoder, adapters, device, ignore_tensors)
        if adapters:  # the adapters may have resized the vocabulary
            tokenizer = _read_tokenizer(named, decoder.config)
        _log_other_tokenizers(named, tokenizer, adapters, decoder.config)
        evidence = _verify(decoder, declaration, dtype, prepack=prepack)
        checked_files = checked.result()
    if device.type == "cpu":
        keep_freed_memory()  # also returns the memory that loading has freed to the kernel

    tokenization = _tokenization(tokenizer, decoder.config, declaration)
    reader = ModuleReader(base, adapters, settings, ignore_tensors, declaration, tokenization)
    encoder = Encoder(
        model=decoder,
        tokenizer=tokenizer,
        tokenization=tokenization,
        adapters=Adapters(decoder, declaration, reader),
        declaration=declaration,
        base=label(base.read("l2v.json").get("base") or base_name(base, adapters)),
        head=head.move(decoder.device, decoder.dtype),
        left_out=(*left_out, *left_out_of_adapters),
        provenance=(base.read("l2v.json").get("sources") or [base.describe()]) + [s.describe() for s in adapters],
    )
    check_pooling(encoder.tokenization, declaration)
    evidence = _evidence(encoder, evidence, checked_files, base, adapters)
    evidence += [encoder.adapters.add(name, source).evidence for name, source in lora_modules.items()]
    return replace(encoder, evidence=tuple(evidence))


def _read_tokenizer(source: Source, config: PreTrainedConfig, *, whole: bool = True) -> ModelTokenizer:
    """Reads the tokenizer. Checks that it belongs to the model, unless adapters may still resize the vocabulary."""
    tokenizer = read_tokenizer(source, config.model_type, config.vocab_size)
    if whole:
        check_vocabulary(source.name, tokenizer.backend, config.vocab_size)
    return tokenizer


def _log_other_tokenizers(
    named: Source, tokenizer: ModelTokenizer, adapters: Sequence[Source], config: PreTrainedConfig
) -> None:
    """Logs the adapters that come with a tokenizer other than the one in use, see `tokenizer_source`."""
    for adapter in adapters:
        files = ("tokenizer.json", "tokenizer_config.json")
        equal, _, _ = filecmp.cmpfiles(named.folder, adapter.folder, files, shallow=False)
        if adapter is named or not adapter.has_tokenizer or len(equal) == len(files):
            continue
        try:
            other = read_tokenizer(adapter, config.model_type, config.vocab_size)
            same = other.equals(tokenizer.backend, tokenizer.cut_left)
        except ModelError:
            same = False
        if not same:
            logger.warning(
                "the tokenizer of %s is ignored: that of %s, which differs, is used", adapter.name, named.name
            )


def _merge(
    decoder: PreTrainedModel, adapters: Sequence[Source], device: torch.device, ignore: Sequence[str]
) -> tuple[PreTrainedModel, list[str]]:
    """Merges the adapters on the CPU, and moves the model to its device. Returns the model and the tensors left out."""
    left_out: list[str] = []
    if adapters:
        from l2v.models.adapters import merge  # imported here, so that exports load without peft

        if device.type == "cpu":
            with stage("reading the weights", sum(weight.nbytes for weight in decoder.parameters())) as advance:
                unmap_weights(decoder, advance)
            keep_freed_memory()  # so that peft's large temporary copies reuse memory
        for adapter in adapters:
            decoder, names = merge(decoder, adapter, ignore)
            left_out += names
    return move(decoder, device), left_out


def _verify(decoder: PreTrainedModel, declaration: Declaration, dtype: DType, *, prepack: bool) -> list[str]:
    """Verifies the decoder, then quantizes or prepacks its linear layers. Returns the evidence."""
    causal, windowed = declaration.causal, declaration.windowed
    with stage("verifying"):
        evidence = [verify(decoder, causal=causal, windowed=windowed, max_length=declaration.max_length.value)]
    check_window(decoder.config, declaration)  # after `verify`, whose errors take precedence
    if quantize := _QUANTIZE.get(dtype):
        evidence.append(verify_quantization(decoder, quantize, dtype, causal=causal, windowed=windowed))
    elif prepack:
        prepack_linears(decoder)
    return evidence


def _tokenization(tokenizer: ModelTokenizer, config: PreTrainedConfig, declaration: Declaration) -> Tokenization:
    backend = tokenizer.backend
    if declaration.lower_case.value:
        backend.normalizer = Normalizers([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])
    return Tokenization(
        tokenizer=backend,
        **declaration.row_settings(config.model_type),
        semantics=declaration.semantics.value,
        special_ids=frozenset(tokenizer.special_ids),
        cut_left=tokenizer.cut_left,
    )


def _evidence(
    encoder: Encoder, verified: list[str], checked_files: int, base: Source, adapters: Sequence[Source]
) -> list[str]:
    """The results of all checks. Raises `ModelError` if the encoder does not reproduce its reference vector."""
    reference = ReferenceVector.read([base, *adapters][-1])
    merged = [f"{s.label} (for {label(s.trained_on or '?')})" for s in adapters]
    return [
        f"files: {checked_files} match their checksums" if checked_files else "files: no checksums recorded",
        "weights: all finite",
        f"adapters: {', '.join(merged)} fit and change the weights" if merged else "adapters: none",
        verified[0],
        f"reference vector: {reference.compare(encoder) if reference else 'none recorded'}",
        *verified[1:],
    ]
