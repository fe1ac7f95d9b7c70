"""Writes a family's checkpoint: random weights, config.json, the tokenizer and what the repository declares."""

import json
from pathlib import Path

import torch
from family import Family
from layout import Json, write_declaration, write_json
from safetensors.torch import save_file
from tiny_tokenizers import TokenizerFiles
from transformers import PreTrainedModel

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Give the model weights with which attention and norms affect the output, unlike the usual initial weights."""
    width = model.config.hidden_size
    zero_centred_norm = model.config.model_type.startswith("gemma")  # Gemma multiplies by 1 + weight
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


def make_model(model_class: type[PreTrainedModel], config: Json, generator: torch.Generator) -> PreTrainedModel:
    model = model_class(model_class.config_class.from_dict(config))
    randomise(model, generator)
    return model.eval()


def write_weights(path: Path, weights: dict[str, torch.Tensor], dtype: str) -> None:
    save_file({name: weight.to(DTYPES[dtype]).contiguous() for name, weight in weights.items()}, path)


def write_tokenizer(folder: Path, files: TokenizerFiles) -> None:
    for name, value in files.as_files(trained=False).items():
        if name == "tokenizer.json":
            # One line: half the size of the indented form.
            (folder / name).write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
        else:
            write_json(folder / name, value)


def published_config(family: Family, files: TokenizerFiles) -> Json:
    tokens = {"bos_token_id": files.bos_id, "eos_token_id": files.eos_id, "vocab_size": files.vocab_size}
    return dict(sorted((family.config | tokens | {"torch_dtype": family.dtype}).items()))


def write_stack(folder: Path, family: Family) -> None:
    """Write the checkpoint, as its publisher lays it out, into an empty folder."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(family.seed)
    files = family.tokenizer()
    config = published_config(family, files)
    write_json(folder / "config.json", config)
    native = family.native_config(config) if family.remote_code else config
    model = make_model(family.model, native, generator)
    weights = {family.prefix + name: weight for name, weight in model.state_dict().items()}
    width = model.config.hidden_size
    if family.head:
        weights["linear.weight"] = torch.randn(family.head, width, generator=generator) * width**-0.5
    write_weights(folder / "model.safetensors", weights, family.dtype)
    write_tokenizer(folder, files)
    if family.declaration:
        write_declaration(folder, family.head or width, family.declaration, generator)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes them readable for the owner only
