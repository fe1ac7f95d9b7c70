"""Whether a run will fit, estimated from the headers of the weights before anything is loaded."""

import os
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig

from l2v.models.chain import resolve_chain
from l2v.models.loading import computes_bfloat16
from l2v.training.checkpoint import tensors
from l2v.training.errors import TrainingError
from l2v.training.recipes import Contrastive, Mntp, Recipe, Supervised

ADVICE = "lower --micro-batch, --batch-size or --max-length, or set --gradient-checkpointing"
_GIB = 1 << 30
# Weight, gradient and AdamW's two moments of each parameter of the adapter, in float32.
_BYTES_PER_TRAINED = 16


def check(recipe: Recipe, devices: int, sharded: bool) -> None:
    """Raises `TrainingError` if the run needs more memory than is free, of a GPU or of this machine.

    Args:
        recipe: the run.
        devices: how many share the batch.
        sharded: whether they share the weights as well.
    """
    base, _ = resolve_chain(recipe.model, recipe.adapters)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed, free = estimate(recipe, base.folder, devices, sharded), psutil.virtual_memory().available
    if recipe.on_cuda:
        # Each process reads the base into the machine's memory before it moves it, or its share.
        if (whole := here * _weights(recipe, base.folder)) > free:
            raise TrainingError(
                f"to load the base in {here} processes takes about {whole / _GIB:.1f} GiB of memory, and "
                f"{free / _GIB:.1f} GiB are free: start fewer"
            )
        free = torch.cuda.mem_get_info()[0]
    else:
        needed *= here
    if needed > free:
        raise TrainingError(
            f"the run needs about {needed / _GIB:.1f} GiB of memory and {free / _GIB:.1f} GiB are free: {ADVICE}"
        )


def estimate(recipe: Recipe, folder: Path, devices: int, sharded: bool) -> int:
    """Bytes of one device: weights, adapter and the activations that the backward pass keeps."""
    config = AutoConfig.from_pretrained(folder)
    size = _bytes(recipe)
    weights, trained = _weights(recipe, folder), 0
    for name, tensor in tensors(folder):
        if name.removesuffix(".weight").rpartition(".")[2] in recipe.lora_targets:
            trained += recipe.lora_r * sum(tensor.shape)
    columns = (
        2 + recipe.hard_negatives if isinstance(recipe, Supervised) else 2 if isinstance(recipe, Contrastive) else 1
    )
    rows = recipe.micro_batch or recipe.batch_size // devices
    # A row has its full length only where texts are cut from a stream; others are guessed at a quarter.
    length = (recipe.max_length or 512) / (1 if isinstance(recipe, Mntp) else 4)
    tokens = rows * columns * length
    width, inner = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    layer = (10 * width + 4 * inner) * size + len(recipe.lora_targets) * width * 4 * bool(recipe.lora_dropout)
    layers = width * size * config.num_hidden_layers + layer
    if not recipe.gradient_checkpointing:
        layers = layer * config.num_hidden_layers
    logits = tokens * recipe.masking * config.vocab_size * 8 if isinstance(recipe, Mntp) else 0
    held = (weights + trained * _BYTES_PER_TRAINED) / (devices if sharded else 1)
    return int(held + tokens * layers + logits)


def _weights(recipe: Recipe, folder: Path) -> int:
    return sum(tensor.numel() for _, tensor in tensors(folder)) * _bytes(recipe)


def _bytes(recipe: Recipe) -> int:
    half = computes_bfloat16(torch.device("cpu")) if recipe.base_dtype == "auto" else recipe.base_dtype == "bfloat16"
    return 2 if half else 4
