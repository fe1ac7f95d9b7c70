"""A run from start to end: arguments of the trainer, checkpoints, resume, and what is left behind."""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.data_loader import BatchSamplerShard
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerState, TrainingArguments

from models.errors import first_line
from training import card, data, memory
from training.errors import TrainingError
from training.recipes import Recipe
from training.student import Student

logger = logging.getLogger(__name__)

Arguments = TypeVar("Arguments", bound=TrainingArguments)
_RECIPE, _RECIPE_PART = "recipe.json", "recipe.json.part"
_ADAPTER, _STATE = "adapter_model.safetensors", "trainer_state.json"


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
        # A batch is drawn as a whole and cut into the shares of the devices, so that all have rows of one dataset.
        "accelerator_config": {"split_batches": True},
    }
    args = kind(**common, **more)
    # One process drives one GPU: nn.DataParallel, which the trainer would take for more, cannot cut packed rows.
    args._n_gpu = min(1, args.n_gpu)  # noqa: SLF001
    share, rest = divmod(recipe.batch_size, args.world_size)
    # A contrastive batch is one whole: the gradient cache divides it, not the accumulation of gradients.
    rows = share if more or not recipe.micro_batch else recipe.micro_batch
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
        TrainingError: if memory will not suffice, or the folder holds something else.
    """
    state = PartialState(cpu=recipe.device == "cpu")
    if state.is_main_process:
        memory.check(recipe, state.num_processes, _sharded())
        _check_folder(recipe)
    state.wait_for_everyone()  # none loads while the memory is measured


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
                self._train()
                weights = self.student.weights()
                if self.is_world_process_zero():
                    self._leave(weights)
                # A process that ends before may fail at it, for which a launcher would end this one in its work.
                self.accelerator.wait_for_everyone()
            self.accelerator.end_training()
        except (OSError, SafetensorError, CheckpointException) as error:
            raise TrainingError(f"{self.recipe.out} cannot be written ({_reason(error)}): {_KEPT}") from error
        except RuntimeError as error:
            # torch.save says so in this way alone.
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise TrainingError(f"{self.recipe.out} cannot be written: is the disk full? {_KEPT}") from error

    def _train(self) -> None:
        """From the last whole checkpoint, if there is one."""
        last = newest(checkpoints(self.recipe), self.recipe.steps)
        if last is not None:
            logger.info("going on from %s", last.name)
        done = checkpoints(self.recipe) / f"checkpoint-{self.recipe.steps}"
        if _is_whole(done) and not self.is_fsdp_enabled:
            # The trainer would take one step more.
            self._load_from_checkpoint(str(done))
            self.state = TrainerState.load_from_json(str(done / _STATE))
            self.accelerator.wait_for_everyone()  # before the first one removes it
        else:
            self.train(resume_from_checkpoint=str(last) if last else None)

    def _leave(self, weights: dict[str, torch.Tensor]) -> None:
        """Puts what the run was for into its folder; the weights come last, by which it is known to be whole."""
        out, part = self.recipe.out, self.recipe.out / "part"
        shutil.rmtree(part, ignore_errors=True)
        self.student.save(part, weights)
        losses = [(entry["step"], entry["loss"]) for entry in self.state.log_history if "loss" in entry]
        hashes = _read(out / _RECIPE)["hashes"]
        card.write(self.recipe, self.student, losses, {source: hashes[source] for source in self.recipe.data}, part)
        settle(part, out, _ADAPTER)
        (out / _RECIPE).unlink()
        shutil.rmtree(checkpoints(self.recipe))

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
                _claim(self.recipe)
            self.accelerator.wait_for_everyone()
            yield

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.args.should_save:
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


def _check_folder(recipe: Recipe) -> None:
    """Makes the folder, or sees that what stands there is this run's."""
    out, begun, now = recipe.out, checkpoints(recipe), _told(recipe)
    if (out / _ADAPTER).exists():
        raise TrainingError(f"{out} holds an adapter already: choose another folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
        there = {path.name for path in out.iterdir()} - {_RECIPE_PART}
        if begun.is_dir() and not any(begun.iterdir()):
            there.remove(begun.name)  # as another process of the run makes it
    except OSError as error:
        raise TrainingError(f"{out} cannot be written ({error.strerror})") from error
    if there and _RECIPE not in there:
        raise TrainingError(f"{out} is not empty and holds no run of ours: choose another folder")
    if _whole(begun):
        before = _read(out / _RECIPE)["recipe"]
        for name in sorted(now | before):
            if before.get(name) != now.get(name):
                raise TrainingError(
                    f"{out} holds a run with {name} {before.get(name)}, not {now.get(name)}: "
                    "choose another folder, or delete that one"
                )


def _claim(recipe: Recipe) -> None:
    """Notes what the run is told and what it learns from; or, where it was begun, sees that this has not changed."""
    _check_folder(recipe)  # once more: another run may have been at work
    file, begun = recipe.out / _RECIPE, checkpoints(recipe)
    hashes = {source: data.digest(source) for source in recipe.data}
    for adapter in recipe.adapters:
        hashes |= {str(file): data.digest(str(file)) for file in Path(adapter).glob("adapter_model.*")}
    if _whole(begun):
        before = _read(file)["hashes"]
        if changed := next((source for source in hashes if hashes[source] != before.get(source)), None):
            raise TrainingError(f"{changed} is not what the run in {recipe.out} began with: choose another folder")
    for folder in (path for path in begun.glob("checkpoint-*") if not _is_whole(path)):
        logger.info("%s was cut off while it was written, and is left out", folder.name)
        shutil.rmtree(folder)
    part = recipe.out / _RECIPE_PART
    part.write_text(json.dumps({"recipe": _told(recipe), "hashes": hashes}, indent=2) + "\n", encoding="utf-8")
    part.replace(file)


def _read(file: Path) -> dict[str, Any]:
    """What a run was told, and the hashes of what it learns from and stands on."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return {"recipe": dict(told["recipe"]), "hashes": dict(told["hashes"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{file} cannot be read: delete {file.parent} to begin anew") from error


def _told(recipe: Recipe) -> dict[str, Any]:
    """What must not change from one start of a run to the next."""
    return recipe.told() | {"processes": PartialState().num_processes, "sharded": _sharded()}


def _sharded() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def _reason(error: BaseException) -> str:
    """In words; a sharded checkpoint has one of its own for each process."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return first_line(error)


def _set_epoch(batches: Sampler[Any], epoch: int) -> None:
    for sampler in (batches, getattr(batches, "sampler", None)):
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)


def settle(part: Path, folder: Path, last: str) -> None:
    """Moves the files of `part` into `folder`, the `last` one last: once it is there, all are, and whole."""
    for file in sorted(part.iterdir(), key=lambda file: file.name == last):
        file.replace(folder / file.name)
    part.rmdir()


def newest(folder: Path, steps: int) -> Path | None:
    """The last checkpoint that was written to its end, before the last of all: from there the trainer goes beyond."""
    whole = _whole(folder)
    return whole.get(max((step for step in whole if step < steps), default=0))


def _whole(folder: Path) -> dict[int, Path]:
    """Checkpoints by their step."""
    return {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*") if _is_whole(path)}


def _is_whole(checkpoint: Path) -> bool:
    """The trainer's state is its last file."""
    try:
        json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
