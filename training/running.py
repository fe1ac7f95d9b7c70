"""A run from start to end: arguments of the trainer, checkpoints, resume, and what is left behind."""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from transformers import Trainer, TrainingArguments

from training import card, memory
from training.errors import TrainingError
from training.recipes import Recipe
from training.student import Student

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=TrainingArguments)
_RECIPE = "recipe.json"


def arguments(recipe: Recipe, kind: type[Arguments], **more: Any) -> Arguments:
    """What transformers' Trainer is told, from a recipe.

    Raises:
        TrainingError: if the batch cannot be shared out.
    """
    cpu = not recipe.on_cuda
    common = {
        "output_dir": str(checkpoints(recipe)),
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
        "dataloader_drop_last": bool(more),
        "dataloader_pin_memory": not cpu,
        "average_tokens_across_devices": False,
        "report_to": "none",
    }
    args = kind(**common, **more)
    share, rest = divmod(recipe.batch_size, args.world_size)
    # A contrastive batch is one whole: the gradient cache divides it, not the accumulation of gradients.
    rows = share if more or not recipe.micro_batch else recipe.micro_batch
    if rest or not share or share % rows:
        raise TrainingError(
            f"a batch of {recipe.batch_size} rows cannot be shared out evenly to {args.world_size} devices"
            + (f" in parts of {rows} (--micro-batch)" if rows != share else "")
        )
    args.per_device_train_batch_size, args.gradient_accumulation_steps = rows, share // rows
    return args


def prepare(recipe: Recipe) -> None:
    """What can be known before anything is loaded.

    Raises:
        TrainingError: if memory will not suffice, or the folder holds something else.
    """
    state = PartialState(cpu=recipe.device == "cpu")
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    memory.check(recipe, state.num_processes, sharded)
    if state.is_main_process:
        _claim(recipe)


def checkpoints(recipe: Recipe) -> Path:
    return recipe.out / "checkpoints"


class Saving:
    """For trainers: checkpoints hold the adapter alone, and a run that was cut off goes on where it stood."""

    recipe: Recipe
    student: Student

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.is_fsdp_enabled:
            # What is shared out and gathered as one; accelerate looks for it on the outermost module alone.
            layers = self.student.encoder.model._no_split_modules  # noqa: SLF001
            self.accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = list(layers)

    def run(self) -> None:
        """Trains to the end and leaves the adapter and its card in `recipe.out`.

        Raises:
            TrainingError: if another run is at work in that folder, or the disk is full.
        """
        # Gradients of micro batches are averaged by the trainer, whatever the model's forward accepts.
        self.model_accepts_loss_kwargs = False
        try:
            with self._alone():
                last = _last(checkpoints(self.recipe))
                if last is not None:
                    logger.info("going on from %s", last.name)
                self.train(resume_from_checkpoint=str(last) if last else None)
                weights = self.student.weights()
                losses = [(entry["step"], entry["loss"]) for entry in self.state.log_history if "loss" in entry]
                if self.is_world_process_zero():
                    self.student.save(self.recipe.out, weights)
                    card.write(self.recipe, self.student, losses)
                    shutil.rmtree(checkpoints(self.recipe))
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{self.recipe.out} cannot be written ({error}): {_KEPT}") from error
        except RuntimeError as error:
            # torch.save says so in this way alone.
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise TrainingError(f"{self.recipe.out} cannot be written: is the disk full? {_KEPT}") from error

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keeps the folder for this run: by its first process, which may outlive a launcher that was killed."""
        descriptor = os.open(self.recipe.out, os.O_RDONLY)
        try:
            if self.is_world_process_zero():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise TrainingError(f"another run is at work in {self.recipe.out}") from None
            self.accelerator.wait_for_everyone()
            yield
        finally:
            os.close(descriptor)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = output_dir or str(checkpoints(self.recipe))
        self.student.model.save_pretrained(folder, state_dict=state_dict, save_embedding_layers=False)

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


_KEPT = "the last whole checkpoint is as it was, and the same command goes on from it"


def _claim(recipe: Recipe) -> None:
    """Makes the folder this run's, or sees that it is already."""
    file = recipe.out / _RECIPE
    told = json.loads(recipe.model_dump_json(exclude={"out", "config"}))
    if (recipe.out / "adapter_model.safetensors").exists():
        raise TrainingError(f"{recipe.out} holds an adapter already: choose another folder")
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
        if different := sorted(name for name in told | before if told.get(name) != before.get(name)):
            name = different[0]
            raise TrainingError(
                f"{recipe.out} holds a run with {name} {before.get(name)}, not {told.get(name)}: "
                "choose another folder, or delete that one"
            )
    elif recipe.out.exists() and any(path.name != checkpoints(recipe).name for path in recipe.out.iterdir()):
        raise TrainingError(f"{recipe.out} is not empty and holds no run of ours: choose another folder")
    try:
        recipe.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{recipe.out} cannot be written ({error.strerror})") from error


def _last(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end: the trainer's state is its last file."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.info("%s was cut off while it was written, and is left out", path.name)
            shutil.rmtree(path, ignore_errors=True)  # another process of the run may be at it too
        else:
            return path
    return None
