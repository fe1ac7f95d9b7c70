"""The trainer of all stages: checkpoints, resuming, and the finished adapter."""

import errno
import fcntl
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from accelerate.data_loader import BatchSamplerShard
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerState

from l2v.models.errors import first_line
from l2v.training import card, folder
from l2v.training.errors import TrainingError
from l2v.training.recipes import Recipe
from l2v.training.student import Student

logger = logging.getLogger(__name__)

# Error numbers for a folder that cannot be written.
_NOT_WRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
_START_OVER = "start over in another folder, with a lower --learning-rate or more --warmup-steps"
_RESUME = "the last complete checkpoint is kept; run the same command to resume from it"


class AdapterTrainer(Trainer):
    """Base class of the trainers: checkpoints hold the adapter only, and an interrupted run resumes.

    Attributes:
        recipe: the settings of the run.
        student: the model being trained. Subclasses set both before they call `super().__init__`.
    """

    recipe: Recipe
    student: Student

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            # Name the layer classes that FSDP shards as units. By itself, accelerate looks for these names only on the
            # outermost module, which does not have them.
            layers = self.student.encoder.model._no_split_modules  # noqa: SLF001
            self.accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = list(layers)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        """Stretch the schedule to `schedule_steps`, if that is longer than the run."""
        scheduler: LRScheduler = super().create_scheduler(
            max(self.recipe.schedule_steps, num_training_steps), optimizer
        )
        return scheduler

    def run(self) -> None:
        """Train, and write the adapter with its model card to `recipe.out`.

        Raises:
            TrainingError: if another run uses that folder, if it cannot be written, or if the loss or a weight is not
                finite.
        """
        # False makes the Trainer average the gradients over micro batches. By default, the Trainer chooses the value
        # from the arguments of the model's `forward`, which say nothing about our losses.
        self.model_accepts_loss_kwargs = False
        try:
            with self._locked_folder():
                self._train()
                weights = self.student.weights()
                if not all(weight.isfinite().all() for weight in weights.values()):
                    raise TrainingError(f"the adapter's weights have become NaN or infinite: {_START_OVER}")
                if self.is_world_process_zero():
                    self._write_adapter(weights)
                # Every process waits until the main process has written the adapter. If another process exited with an
                # error before that, the launcher would kill the main process too.
                self.accelerator.wait_for_everyone()
            self.accelerator.end_training()
        except (OSError, SafetensorError, CheckpointException) as error:
            if isinstance(error, OSError) and error.errno not in _NOT_WRITABLE:
                raise  # from reading data, or from communication between processes
            raise TrainingError(f"{self.recipe.out} cannot be written ({_reason(error)}): {_RESUME}") from error
        except RuntimeError as error:
            # torch.save reports a failed write only through these messages.
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise TrainingError(f"{self.recipe.out} cannot be written (is the disk full?): {_RESUME}") from error

    def _train(self) -> None:
        """Train from the latest complete checkpoint, if there is one."""
        saved, steps = folder.checkpoints(self.recipe), self.recipe.steps
        final = saved / f"checkpoint-{steps}"
        if folder.is_complete(final) and not self.is_fsdp_enabled:
            # If the trainer resumed from the final step, it would do one more step.
            logger.info("resuming from %s", final.name)
            self._load_from_checkpoint(str(final))
            self.state = TrainerState.load_from_json(str(final / folder.STATE))
            self.accelerator.wait_for_everyone()  # before the main process deletes the checkpoint
            return
        latest = folder.latest_checkpoint(saved, steps)
        if latest is not None:
            logger.info("resuming from %s", latest.name)
        self.train(resume_from_checkpoint=str(latest) if latest else None)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Record the loss, and end the run if the loss is not finite, since training cannot recover from that."""
        super().log(logs, start_time)
        if not math.isfinite(logs.get("loss", 0)):
            raise TrainingError(f"the loss is {logs['loss']} at step {self.state.global_step}: {_START_OVER}")

    def _write_adapter(self, weights: dict[str, torch.Tensor]) -> None:
        """Write the adapter and its model card. The weights come last, which marks the folder as complete."""
        part = self.recipe.out / "part"
        shutil.rmtree(part, ignore_errors=True)
        self.student.save(part, weights)
        losses = [(entry["step"], entry["loss"]) for entry in self.state.log_history if "loss" in entry]
        card.write(self.recipe, self.student, losses, folder.data_hashes(self.recipe), part)
        folder.move_files(part, self.recipe.out, folder.ADAPTER)
        folder.clean_up(self.recipe)

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader: DataLoader[Any] = super().get_train_dataloader()
        if isinstance(shard := loader.batch_sampler, BatchSamplerShard):
            # The Trainer passes each epoch's number to the batch sampler, and to the sampler one level inside it. In a
            # resumed run, a wrapper skips the finished batches, so this shard is one level inside. The shard has no
            # `set_epoch`, so add one that passes the number on to the samplers inside the shard.
            shard.set_epoch = partial(_set_epoch, shard.batch_sampler)
        return loader

    @contextmanager
    def _locked_folder(self) -> Iterator[None]:
        """Lock the output folder during the run.

        The main process holds the lock rather than the launcher, since the main process may outlive a killed launcher.
        """
        with ExitStack() as stack:
            if self.is_world_process_zero():
                descriptor = os.open(self.recipe.out, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise TrainingError(f"another run is using {self.recipe.out}: wait for it to end") from None
                folder.claim(self.recipe)
            self.accelerator.wait_for_everyone()
            yield

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
            target = output_dir or str(folder.checkpoints(self.recipe))
            self.student.model.save_pretrained(target, state_dict=state_dict, save_embedding_layers=False)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # After this method, the Trainer writes its state, which marks the checkpoint as complete. So first wait until
        # every process has written its part.
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PeftModel | None = None) -> None:
        if self.is_fsdp_enabled:
            # Do not use super() here: in `ContrastiveTrainer`, it would call sentence-transformers' override, which
            # does not accept the argument `model`.
            Trainer._load_from_checkpoint(self, resume_from_checkpoint, model)  # noqa: SLF001
            return
        set_peft_model_state_dict(self.student.model, load_peft_weights(resume_from_checkpoint, device="cpu"))


def _reason(error: BaseException) -> str:
    """The message of an error. A sharded checkpoint has one error per process; the first is enough."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return first_line(error)


def _set_epoch(batches: Sampler[Any], epoch: int) -> None:
    """Pass the epoch to a batch sampler, and to the sampler inside it, where they accept it."""
    for sampler in (batches, getattr(batches, "sampler", None)):
        if set_epoch := getattr(sampler, "set_epoch", None):
            set_epoch(epoch)
