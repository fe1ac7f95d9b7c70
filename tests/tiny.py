"""Tiny random checkpoints in the published layouts, for tests that need a model but no meaningful vectors."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPE = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "initializer_range": 0.2,
}


def make_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer: one token per byte, after <s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)


def make_base(folder: Path, model_type: str = "llama", *, seed: int = 0, **changes: object) -> Path:
    """Writes a decoder checkpoint: config, weights of the ForCausalLM model, tokenizer."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **(SHAPE | changes))
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_adapter(
    folder: Path, base: Path, *, seed: int = 1, name: str = "", targets: list[str] | None = None, scale: float = 0.1
) -> Path:
    """Writes a LoRA adapter for the bare model, as published ones are. It names `name` as its base."""
    torch.manual_seed(seed)
    model = AutoModel.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets or PROJECTIONS))
    for key, parameter in adapted.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=scale)
    adapted.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": name or str(base)}))
    return folder
