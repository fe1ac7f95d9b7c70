"""Tiny random LLM2Vec stacks, in the layout in which McGill-NLP publishes the real ones.

A stack is three folders: `base` (an ordinary decoder checkpoint), `mntp` (an adapter, tokenizer files and a config.json
that names remote code, but no base weights) and `contrastive` (the second adapter).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizer_files import Json, TokenizerFiles, gemma, llama2, llama3, qwen2
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

# In alphabetical order, since peft writes a set: loaders must not rely on any order.
PROJECTIONS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")

SHAPE: Json = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "torch_dtype": "float32"}


@dataclass(frozen=True)
class Adapter:
    """Rank and alpha of a LoRA adapter. They differ between the stages, so that tests notice swapped adapters."""

    r: int
    alpha: int

    @property
    def scale(self) -> float:
        return self.alpha / self.r


MNTP = Adapter(r=4, alpha=8)
CONTRASTIVE = Adapter(r=2, alpha=3)


@dataclass(frozen=True)
class Stack:
    """The definition of a stack; `base_id` is the Hub id of its base, which determines the template."""

    name: str
    base_id: str
    seed: int
    config_class: type[PretrainedConfig]
    config: Json
    tokenizer: Callable[[], TokenizerFiles]
    llm2vec_config: bool = False  # some published second stages carry the encoder's settings, older ones do not


STACKS = (
    Stack(
        name="llama3-instruct",
        base_id="meta-llama/Meta-Llama-3-8B-Instruct",
        seed=3,
        config_class=LlamaConfig,
        config={
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_theta": 500000.0,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 8192,
        },
        tokenizer=lambda: llama3(560),
        llm2vec_config=True,
    ),
    Stack(
        name="mistral-instruct",
        base_id="mistralai/Mistral-7B-Instruct-v0.2",
        seed=7,
        config_class=MistralConfig,
        config={
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 32768,
            # The real v0.2 has none. Most cases are longer, so a loader that applies this window fails.
            "sliding_window": 64,
        },
        tokenizer=lambda: llama2(400, legacy=True, mask_token="_"),
    ),
    Stack(
        name="sheared-llama",
        base_id="princeton-nlp/Sheared-LLaMA-1.3B",
        seed=13,
        config_class=LlamaConfig,
        config={
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
        },
        tokenizer=lambda: llama2(400, legacy=False, mask_token=None),
    ),
    Stack(
        name="gemma",
        base_id="google/gemma-2b",
        seed=2,
        config_class=GemmaConfig,
        config={
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 16,  # not hidden / heads
            "hidden_act": "gelu",
            "hidden_activation": "gelu_pytorch_tanh",
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 8192,
        },
        tokenizer=lambda: gemma(400),
    ),
    Stack(
        name="qwen2-instruct",
        base_id="Qwen/Qwen2-1.5B-Instruct",
        seed=15,
        config_class=Qwen2Config,
        config={
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "rope_theta": 1000000.0,
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "max_window_layers": 2,
        },
        tokenizer=lambda: qwen2(560),
        llm2vec_config=True,
    ),
)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_tokenizer(folder: Path, files: TokenizerFiles, *, trained: bool) -> None:
    for name, value in files.as_files(trained=trained).items():
        if name == "tokenizer.json":
            # On one line, which is half the size of the published, indented form.
            (folder / name).write_text(json.dumps(value, ensure_ascii=False) + "\n")
        else:
            write_json(folder / name, value)


def randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Set weights with which attention, norms and biases all affect the output.

    With the usual small initial weights, attention is uniform, and causal and bidirectional runs hardly differ.
    """
    width = model.config.hidden_size
    zero_centred_norm = model.config.model_type == "gemma"  # Gemma multiplies by 1 + weight
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            weight.data = 0.1 * noise + (0.0 if zero_centred_norm else 1.0)
        elif name.endswith("bias"):
            weight.data = 0.2 * noise
        elif "embed_tokens" in name:
            weight.data = 0.5 * noise
        else:
            weight.data = 1.3 * width**-0.5 * noise


def write_base(folder: Path, stack: Stack, files: TokenizerFiles, generator: torch.Generator) -> PreTrainedModel:
    """Write the decoder checkpoint, as its authors publish it."""
    tokens = {"bos_token_id": files.bos_id, "eos_token_id": files.eos_id, "pad_token_id": None}
    config = stack.config_class(**SHAPE, **stack.config, vocab_size=files.vocab_size, **tokens)
    model = AutoModelForCausalLM.from_config(config)
    randomise(model, generator)
    model.save_pretrained(folder)
    # Sampling defaults, which published bases have and no encoder reads.
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_tokenizer(folder, files, trained=False)
    written = json.loads((folder / "config.json").read_text())
    assert "_name_or_path" not in written, written
    assert written["architectures"] == [type(model).__name__], written
    return model


def adapter_tensors(model: PreTrainedModel, adapter: Adapter, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Random A and B for every projection, with the keys that peft uses for an adapter on the bare model."""
    tensors = {}
    for name, module in model.model.named_modules():
        if name.rpartition(".")[2] in PROJECTIONS:
            a = torch.randn(adapter.r, module.in_features, generator=generator) * 0.2
            b = torch.randn(module.out_features, adapter.r, generator=generator) * 0.1
            tensors[f"base_model.model.{name}.lora_A.weight"] = a
            tensors[f"base_model.model.{name}.lora_B.weight"] = b
    return tensors


def adapter_config(stack: Stack, adapter: Adapter, model: PreTrainedModel) -> Json:
    """The config as written by peft 0.10, which made the published adapters."""
    encoder_class = type(model).__name__.replace("ForCausalLM", "BiModel")
    return {
        "alpha_pattern": {},
        "auto_mapping": {
            "base_model_class": encoder_class,
            "parent_library": f"llm2vec.models.bidirectional_{model.config.model_type}",
        },
        "base_model_name_or_path": stack.base_id,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.05,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.r,
        "rank_pattern": {},
        "revision": None,
        "target_modules": list(PROJECTIONS),
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }


def write_adapter(
    folder: Path, stack: Stack, adapter: Adapter, model: PreTrainedModel, generator: torch.Generator
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "adapter_config.json", adapter_config(stack, adapter, model))
    tensors = adapter_tensors(model, adapter, generator)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def write_mntp_config(folder: Path, stack: Stack, base: Path) -> None:
    """Write the base's config.json with its name and a reference to remote code, as published repositories have it."""
    config = json.loads((base / "config.json").read_text())
    kind = config["model_type"]
    encoder = config["architectures"][0].replace("ForCausalLM", "EncoderModel")
    extra = {
        "_name_or_path": stack.base_id,
        "architectures": [encoder],
        "auto_map": {"AutoModel": f"modeling_{kind}_encoder.{encoder}"},
    }
    write_json(folder / "config.json", dict(sorted((config | extra).items())))


def write_stack(root: Path, stack: Stack) -> None:
    """Write `base`, `mntp` and `contrastive` to `root`."""
    generator = torch.Generator().manual_seed(stack.seed)
    files = stack.tokenizer()
    base, mntp, contrastive = (root / part for part in ("base", "mntp", "contrastive"))
    model = write_base(base, stack, files, generator)
    write_adapter(mntp, stack, MNTP, model, generator)
    write_tokenizer(mntp, files, trained=True)
    write_mntp_config(mntp, stack, base)
    write_adapter(contrastive, stack, CONTRASTIVE, model, generator)
    if stack.llm2vec_config:
        settings = {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": True}
        write_json(contrastive / "llm2vec_config.json", settings)
    for path in root.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them readable for the owner only
