"""A run from start to end: arguments of the trainer, checkpoints, resume, and what is left behind."""

import errno
import fcntl
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.data_loader import BatchSamplerShard
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerState, TrainingArguments

from l2v.models.errors import first_line
from l2v.training import card, folder, memory
from l2v.training.errors import TrainingError
from l2v.training.recipes import Contrastive, Recipe
from l2v.training.student import Student

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def arguments(recipe: Recipe, kind: type[Arguments], **extra: Any) -> Arguments:
    """What transformers' Trainer is told, from a recipe.

    Raises:
        TrainingError: if the batch cannot be shared out.
    """
    cpu = not recipe.on_cuda
    # A contrastive batch is one whole, which the gradient cache divides, not the accumulation of gradients.
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
        "report_to": "none",
        # A batch is drawn as a whole and cut into the shares of the devices, so that all have rows of one dataset.
        "accelerator_config": {"split_batches": True},
    }
    args: Arguments = kind(**common, **extra)
    # One process drives one GPU: nn.DataParallel, which the trainer would take for more, cannot cut packed rows.
    args._n_gpu = min(1, args.n_gpu)  # noqa: SLF001
    share, rest = divmod(recipe.batch_size, args.world_size)
    rows = share if whole or not recipe.micro_batch else recipe.micro_batch
    if rest or not share or share % rows:
        raise TrainingError(
            f"a batch of {recipe.batch_size} rows cannot be shared out evenly to {args.world_size} devices"
            + (f" in parts of {rows} (--micro-batch)" if rows != share else "")
        )
    # The trainer's word for what is drawn at a time, which here is for all devices.
    args.per_device_train_batch_size, args.gradient_accumulation_steps = rows * args.world_size, share // rows
    return args


def prepare(recipe: Recipe) -> None:
    """What can be known before anything is loaded.

    Raises:
        TrainingError: if there is no GPU where one was asked for, memory will not suffice, or the folder holds
            something else.
    """
    if recipe.device == "cuda" and not recipe.on_cuda:
        raise TrainingError("--device cuda: torch finds no GPU here; take --device cpu, or mend driver or torch")
    state = PartialState(cpu=recipe.device == "cpu", timeout=_PREPARING)
    if state.is_main_process:
        memory.check(recipe, state.num_processes, folder.sharded())
        folder.check(recipe)
    state.wait_for_everyone()  # none loads while the memory is measured


class Saving(Trainer):
    """For trainers: checkpoints hold the adapter alone, and a run that was cut off goes on where it stood."""

    recipe: Recipe
    student: Student

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            # What is shared out and gathered as one; accelerate looks for it on the outermost module alone.
            layers = self.student.encoder.model._no_split_modules  # noqa: SLF001
            self.accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = list(layers)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        scheduler: LRScheduler = super().create_scheduler(
            max(self.recipe.schedule_steps, num_training_steps), optimizer
        )
        return scheduler

    def run(self) -> None:
        """Trains to the end and leaves the adapter and its card in `recipe.out`.

        Raises:
            TrainingError: if another run is at work in that folder, it cannot be written, or the loss or a weight is
                not finite any more.
        """
        # Gradients of micro batches are averaged by the trainer, whatever the model's forward accepts.
        self.model_accepts_loss_kwargs = False
        try:
            with self._alone():
                self._train()
                weights = self.student.weights()
                if not all(weight.isfinite().all() for weight in weights.values()):
                    raise TrainingError(f"the adapter's weights have become NaN or infinite: {_DIVERGED}")
                if self.is_world_process_zero():
                    self._leave(weights)
                # A process that ends before may fail at it, for which a launcher would end this one in its work.
                self.accelerator.wait_for_everyone()
            self.accelerator.end_training()
        except (OSError, SafetensorError, CheckpointException) as error:
            if isinstance(error, OSError) and error.errno not in _WRITING:
                raise  # of what the run reads, or of its processes' talk
            raise TrainingError(f"{self.recipe.out} cannot be written ({_reason(error)}): {_KEPT}") from error
        except RuntimeError as error:
            # torch.save says so in this way alone.
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise TrainingError(f"{self.recipe.out} cannot be written: is the disk full? {_KEPT}") from error

    def _train(self) -> None:
        """From the last whole checkpoint, if there is one."""
        begun, steps = folder.checkpoints(self.recipe), self.recipe.steps
        done = begun / f"checkpoint-{steps}"
        if folder.is_whole(done) and not self.is_fsdp_enabled:
            # From there the trainer would take one step more.
            logger.info("going on from %s", done.name)
            self._load_from_checkpoint(str(done))
            self.state = TrainerState.load_from_json(str(done / folder.STATE))
            self.accelerator.wait_for_everyone()  # before the first one removes it
            return
        last = folder.newest(begun, steps)
        if last is not None:
            logger.info("going on from %s", last.name)
        self.train(resume_from_checkpoint=str(last) if last else None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Notes the loss, and ends the run once it is no number: nothing is learnt from there on."""
        super().log(logs, start_time)
        if not math.isfinite(logs.get("loss", 0)):
            raise TrainingError(f"the loss is {logs['loss']} by step {self.state.global_step}: {_DIVERGED}")

    def _leave(self, weights: dict[str, torch.Tensor]) -> None:
        """Puts what the run was for into its folder; the weights come last, by which it is known to be whole."""
        part = self.recipe.out / "part"
        shutil.rmtree(part, ignore_errors=True)
        self.student.save(part, weights)
        losses = [(entry["step"], entry["loss"]) for entry in self.state.log_history if "loss" in entry]
        card.write(self.recipe, self.student, losses, folder.hashes(self.recipe), part)
        folder.settle(part, self.recipe.out, folder.ADAPTER)
        folder.release(self.recipe)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = super().get_train_dataloader()
        if isinstance(shard := loader.batch_sampler, BatchSamplerShard):
            # The order of an epoch is drawn inside of it, where the trainer's telling of the epoch does not reach
            # once a resumed run skips the batches that it has had.
            shard.set_epoch = partial(_set_epoch, shard.batch_sampler)
        return loader

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps the folder for this run: by its first process, which may outlive a launcher that was killed."""
        with ExitStack() as stack:
            if self.is_world_process_zero():
                descriptor = os.open(self.recipe.out, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise TrainingError(f"another run is at work in {self.recipe.out}") from None
                folder.claim(self.recipe)
            self.accelerator.wait_for_everyone()
            yield

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            into = output_dir or str(folder.checkpoints(self.recipe))
            self.student.model.save_pretrained(into, state_dict=state_dict, save_embedding_layers=False)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # The trainer's state comes next, which makes a checkpoint whole: no process may still be writing its part.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PeftModel | None = None) -> None:
        if self.is_fsdp_enabled:
            # Past sentence-transformers', which takes no model.
            Trainer._load_from_checkpoint(self, resume_from_checkpoint, model)  # noqa: SLF001
            return
        set_peft_model_state_dict(self.student.model, load_peft_weights(resume_from_checkpoint, device="cpu"))


# Processes wait for one another while the first reads and cuts the texts.
_PREPARING = timedelta(hours=12)
# What the system says of a folder that cannot be written.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_DIVERGED = "begin anew in another folder, with a lower --learning-rate or more --warmup-steps"
_KEPT = "the last whole checkpoint is as it was, and the same command goes on from it"


def _reason(error: BaseException) -> str:
    """In words; a sharded checkpoint has one of its own for each process."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return first_line(error)


def _set_epoch(batches: Sampler[Any], epoch: int) -> None:
    for sampler in (batches, getattr(batches, "sampler", None)):
        if set_epoch := getattr(sampler, "set_epoch", None):
            set_epoch(epoch)
