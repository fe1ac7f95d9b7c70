"""The arguments of transformers' Trainer, built from the settings of a run."""

from typing import Any, TypeVar

from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from l2v.training import folder
from l2v.training.errors import TrainingError
from l2v.training.recipes import Contrastive, Recipe

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def arguments(recipe: Recipe, kind: type[Arguments], **extra: Any) -> Arguments:
    """Build the trainer's arguments.

    Raises:
        TrainingError: if the devices cannot share the batch evenly, or a tracker is not installed.
    """
    installed = get_available_reporting_integrations()
    if missing := [name for name in recipe.report_to if name not in installed]:
        raise TrainingError(
            f"--report-to {missing[0]}: the tracker is not installed, or transformers does not know it; installed: "
            f"{', '.join(installed) or 'none'}"
        )
    cpu = not recipe.on_cuda
    # A contrastive batch may be split by the gradient cache, but not by gradient accumulation.
    whole = isinstance(recipe, Contrastive)
    common = {
        "output_dir": str(folder.checkpoints(recipe)),
        "max_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "warmup_steps": recipe.warmup_steps,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "lr_scheduler_type": "linear",
        "logging_steps": recipe.log_steps,
        "logging_nan_inf_filter": False,
        "save_steps": recipe.save_steps,
        "save_total_limit": 2,
        "seed": recipe.seed,
        "bf16": recipe.base_dtype == "bfloat16",
        "use_cpu": cpu,
        "ddp_find_unused_parameters": False,
        "remove_unused_columns": False,
        "dataloader_drop_last": whole,
        "dataloader_pin_memory": not cpu,
        "average_tokens_across_devices": False,
        "report_to": list(recipe.report_to) or "none",
        "disable_tqdm": False,  # the default depends on transformers' log level
        # Split each batch across the devices, so that in a step, all devices have rows of the same dataset.
        "accelerator_config": {"split_batches": True},
    }
    args: Arguments = kind(**common, **extra)
    # With several GPUs per process, the trainer would use nn.DataParallel, which cannot split packed rows.
    args._n_gpu = min(1, args.n_gpu)  # noqa: SLF001
    share, rest = divmod(recipe.batch_size, args.world_size)
    rows = share if whole or not recipe.micro_batch else recipe.micro_batch
    if rest or not share or share % rows:
        raise TrainingError(
            f"--batch-size {recipe.batch_size} cannot be split evenly across {args.world_size} devices"
            + (f" with --micro-batch {rows}" if rows != share else "")
        )
    # With split_batches, `per_device_train_batch_size` counts the rows of all devices.
    args.per_device_train_batch_size, args.gradient_accumulation_steps = rows * args.world_size, share // rows
    return args
