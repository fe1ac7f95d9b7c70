"""An estimate of the memory that a run needs, from the headers of the weight files."""

from math import prod

import psutil
import torch

from l2v.models.checkpoint import Checkpoint
from l2v.models.decoder import read_config
from l2v.models.devices import computes_bfloat16
from l2v.models.sources import Source
from l2v.models.stack import resolve_stack
from l2v.training import processes
from l2v.training.errors import TrainingError
from l2v.training.recipes import Contrastive, Mntp, Recipe, Supervised

ADVICE = "lower --micro-batch, --batch-size or --max-length, or set --gradient-checkpointing"
_GIB = 1 << 30
# Weight, gradient and the two moments of AdamW, all in float32, for each parameter of the adapter.
_BYTES_PER_TRAINED = 16


def check(recipe: Recipe, devices: int) -> None:
    """Check the estimate against the free memory of the GPU or of this machine.

    Args:
        recipe: the settings of the run.
        devices: number of devices that share the batch.

    Raises:
        TrainingError: if the run needs more memory than is free.
    """
    base, _ = resolve_stack(recipe.model, recipe.adapters)
    local = processes.per_machine()
    needed = estimate(recipe, base, devices, processes.is_sharded())
    free = psutil.virtual_memory().available
    if recipe.on_cuda:
        # Each process loads the whole base into main memory, and then moves it, or its shard, to the GPU.
        if (whole := local * _weight_bytes(recipe, base)) > free:
            raise TrainingError(
                f"loading the base in {local} processes takes about {whole / _GIB:.1f} GiB of memory, but only "
                f"{free / _GIB:.1f} GiB are free: start fewer processes"
            )
        free = torch.cuda.mem_get_info()[0]
    else:
        needed *= local
    if needed > free:
        raise TrainingError(
            f"the run needs about {needed / _GIB:.1f} GiB of memory, but only {free / _GIB:.1f} GiB are free: {ADVICE}"
        )


def estimate(recipe: Recipe, base: Source, devices: int, sharded: bool) -> int:
    """Bytes per device: weights, adapter, optimizer, and the activations kept for the backward pass."""
    config = read_config(base)
    size = _bytes_per_weight(recipe)
    weights, trained = _weight_bytes(recipe, base), 0
    for name, shape in Checkpoint.of(base).shapes.items():
        if name.removesuffix(".weight").rpartition(".")[2] in recipe.lora_targets:
            trained += recipe.lora_r * sum(shape)
    texts_per_row = (
        2 + recipe.hard_negatives if isinstance(recipe, Supervised) else 2 if isinstance(recipe, Contrastive) else 1
    )
    rows = recipe.micro_batch or recipe.batch_size // devices
    # MNTP fills its rows; other texts are assumed to have a quarter of the maximum length on average.
    length = (recipe.max_length or 512) / (1 if isinstance(recipe, Mntp) else 4)
    tokens = rows * texts_per_row * length
    width, inner = config.hidden_size, getattr(config, "intermediate_size", 4 * config.hidden_size)
    layer = (10 * width + 4 * inner) * size + len(recipe.lora_targets) * width * 4 * bool(recipe.lora_dropout)
    layers = width * size * config.num_hidden_layers + layer
    if not recipe.gradient_checkpointing:
        layers = layer * config.num_hidden_layers
    logits = tokens * recipe.masking * config.vocab_size * 8 if isinstance(recipe, Mntp) else 0
    held = (weights + trained * _BYTES_PER_TRAINED) / (devices if sharded else 1)
    return int(held + tokens * layers + logits)


def _weight_bytes(recipe: Recipe, base: Source) -> int:
    return sum(map(prod, Checkpoint.of(base).shapes.values())) * _bytes_per_weight(recipe)


def _bytes_per_weight(recipe: Recipe) -> int:
    half = computes_bfloat16(torch.device("cpu")) if recipe.base_dtype == "auto" else recipe.base_dtype == "bfloat16"
    return 2 if half else 4
