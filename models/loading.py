"""Sources → base → adapters → merge → verify: from names to an encoder that is known to work."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pickle import UnpicklingError
from typing import get_args

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from l2v.models import attention, checksums, fp8, int8
from l2v.models.allocator import keep_memory, own_memory
from l2v.models.chain import base_name, resolve_chain, settings_of
from l2v.models.encoder import Encoder
from l2v.models.errors import ModelError, SourceError, UnsupportedModelError, first_line
from l2v.models.known import Known
from l2v.models.packing import pack
from l2v.models.sources import Source, label
from l2v.models.templates import TEMPLATES, TemplateName, eos_for, template_for
from l2v.models.tokenization import Tokenization
from l2v.models.tokenizer import read_backend, read_tokenizer
from l2v.models.types import DType, Pooling
from l2v.models.verify import verify, verify_rounding

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
    packed: bool = True,
) -> Encoder:
    """Loads an encoder and proves that it is one.

    Args:
        model: a base model, an LLM2Vec repository or a merged export, as Hub id (`id` or `id@revision`), folder or
            published short name.
        adapters: sources merged in this order behind what `model` brings.
        dtype: `auto` is bfloat16 on CUDA from Ampere on and on CPUs that compute in it, else float32; `int8` (on CPUs)
            and `fp8` (on CUDA) round the weights and inputs of linear layers, and leave the rest as `auto` has it.
        device: `auto` is CUDA if there is one, else the CPU; or any torch device.
        pooling, max_length, doc_max_length, skip_instruction: where None, what the sources say (`l2v.json`,
            `llm2vec_config.json`, the last adapter's first), else mean, 512, 400, True.
        template: a name of `models.templates.TEMPLATES`; where None, the base model's.
        packed: lay the weights out as the CPU multiplies them. Not for who saves, trains or compiles them.

    Raises:
        ModelError: one sentence that says which source, why, and what to do.
    """
    base, chain = resolve_chain(model, adapters)
    files = sum(checksums.check(source) for source in [base, *chain])
    settings = settings_of([base, *chain])
    place = _device(device)
    config = _config(base)
    decoder = _decoder(base, config, _dtype(dtype, place))
    if chain:
        from l2v.models.adapters import merge  # here, since an export needs no peft

        if place.type == "cpu":
            own_memory(decoder)
        for adapter in chain:
            decoder = merge(decoder, adapter)
    decoder = _move(decoder, place)
    verify(decoder)
    rounding = []
    if quantize := _QUANTIZE.get(dtype):
        rounding.append(f"{dtype}: hidden states keep a cosine of {verify_rounding(decoder, quantize, dtype):.4f}")
    elif packed:
        pack(decoder)
    if place.type == "cpu":
        keep_memory()  # from here on: what loading has used goes back

    # Like the reference, the tokenizer of the repository that was named, where it brings one.
    tokenizer_source = next(source for source in [*chain[:1], base] if source.has_tokenizer or source is base)
    tokenizer = read_tokenizer(tokenizer_source)
    base_id = settings.get("base") or base_name(base, chain)
    template = template or settings.get("template") or template_for(base_id)
    pooling = pooling or settings.get("pooling_mode", "mean")
    _check_known("template", template, TEMPLATES)
    _check_known("pooling", pooling, get_args(Pooling))
    tokenization = Tokenization(
        tokenizer=read_backend(tokenizer_source, tokenizer),
        template=TEMPLATES[template],
        eos=eos_for(TEMPLATES[template], config.model_type) if pooling == "eos_token" else "",
        max_length=max_length or settings.get("max_length", 512),
        doc_max_length=doc_max_length or settings.get("doc_max_length", 400),
        skip_instruction=settings.get("skip_instruction", True) if skip_instruction is None else skip_instruction,
    )
    _check_lengths(config, tokenization.max_length)
    if (tokens := tokenization.tokenizer.get_vocab_size()) > config.vocab_size:
        raise ModelError(
            f"the tokenizer of {tokenizer_source.name} has {tokens} tokens and the model {config.vocab_size}: "
            "they do not belong together"
        )
    if pooling == "bos_token" and tokenization.leading == 0:
        raise ModelError(f"pooling bos_token needs a beginning token, which the tokenizer of {base.name} does not add")
    encoder = Encoder(
        model=decoder,
        tokenizer=tokenizer,
        tokenization=tokenization,
        pooling=pooling,
        base=label(base_id),
        template=template,
        provenance=(base.read("l2v.json").get("sources") or [base.describe()]) + [s.describe() for s in chain],
    )
    return replace(encoder, evidence=(*_evidence(encoder, files, base, chain), *rounding))


def _evidence(encoder: Encoder, files: int, base: Source, chain: list[Source]) -> tuple[str, ...]:
    """What is proved by now, and whether a known text gives the vector that was recorded; raises `ModelError`."""
    known = Known.read([base, *chain][-1])
    adapters = [
        f"{s.label} (for {label(s.read('adapter_config.json').get('base_model_name_or_path') or '?')})" for s in chain
    ]
    return (
        f"files: {files} are what was recorded of them" if files else "files: no checksums are recorded of them",
        "weights: all finite",
        f"adapters: {', '.join(adapters)} fit, and change the weights" if adapters else "adapters: none",
        "attention: bidirectional, and blind to the other sequences of a batch",
        f"recorded vector: {known.compare(encoder) if known else 'none'}",
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"torch does not know device {name}: use auto, cpu or cuda") from error


def _move(decoder: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    try:
        moved: PreTrainedModel = decoder.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"the model cannot be put on device {device}: {first_line(error)}") from error
    return moved


def _dtype(name: DType, device: torch.device) -> torch.dtype:
    if name == "fp8":
        return torch.bfloat16
    if name in ("auto", "int8"):
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself; a CPU that does not takes several times as long as in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _config(base: Source) -> PreTrainedConfig:
    try:
        # An LLM2Vec repository names remote code in its config; it is neither needed nor ever run.
        return AutoConfig.from_pretrained(base.folder, trust_remote_code=False)
    except Exception as error:  # a field's own validator raises what it likes
        kind = base.read("config.json").get("model_type", "unknown")
        if kind in CONFIG_MAPPING_NAMES:
            raise SourceError(f"config.json of {base.name} is damaged ({first_line(error)}): fetch it again") from error
        raise UnsupportedModelError(
            f"{base.name} is of type {kind}, which this version of transformers cannot read without remote code"
        ) from error


def _decoder(base: Source, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The bare decoder with packed bidirectional attention, every weight found."""
    if not any(base.folder.glob("*.safetensors")) and not any(base.folder.glob("*.bin")):
        raise SourceError(f"{base.name} has no weights: neither *.safetensors nor *.bin stands in {base.folder}")
    try:
        decoder, found = AutoModel.from_pretrained(
            base.folder,
            config=config,
            dtype=dtype,
            attn_implementation=attention.NAME,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except UnpicklingError as error:
        raise SourceError(f"the weights of {base.name} hold more than numbers, which is never loaded") from error
    except (SafetensorError, OSError, EOFError, RuntimeError) as error:
        raise SourceError(
            f"the weights of {base.name} are damaged or incomplete ({first_line(error)}): fetch them again"
        ) from error
    except Exception as error:  # of the architecture's own code, on whatever the config says
        raise UnsupportedModelError(
            f"{base.name} ({config.model_type}) cannot run packed attention: {first_line(error)}"
        ) from error
    missing = sorted(found["missing_keys"]) + sorted(str(key[0]) for key in found["mismatched_keys"])
    if missing:
        raise SourceError(
            f"the weights of {base.name} do not fit its config: {len(missing)} are missing or of another shape, "
            f"{missing[0]} among them; fetch it again"
        )
    return decoder


def _check_known(what: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ModelError(f"{what} {value} is unknown: it must be one of {', '.join(known)}")


def _check_lengths(config: PreTrainedConfig, max_length: int) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions and max_length > positions:
        raise ModelError(f"max_length {max_length} is beyond the {positions} positions of the model")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type") or rope.get("type")
    short = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    if kind == "longrope" and short and max_length > short:
        # Which of the two sets of frequencies is taken hangs on the longest text of a batch.
        raise UnsupportedModelError(
            f"{config.model_type} turns short texts otherwise beside long ones (longrope): max_length {max_length} "
            f"must not be beyond {short}"
        )
    window = getattr(config, "sliding_window", None)
    layers = set(getattr(config, "layer_types", None) or [])
    if window and len(layers) > 1 and max_length > window:
        raise UnsupportedModelError(
            f"{config.model_type} mixes layers of full and of windowed attention: max_length {max_length} "
            f"must not be beyond its window of {window}"
        )
