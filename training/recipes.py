"""What a training run can be told: one field is a flag, a key of the YAML file and a row in the docs."""

import logging
import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, PydanticBaseSettingsSource, YamlConfigSettingsSource

from l2v.models.settings import ModelSettings, Names
from l2v.models.types import ROUNDED, DType
from l2v.training.errors import TrainingError

CONFIGS = Path(__file__).parent / "configs"
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Recipe(ModelSettings):
    """What all stages share. Flags win over the YAML file, and that over the environment.

    Attributes:
        module: the module of `training` that runs it.
    """

    module: ClassVar[str]

    out: CliPositionalArg[Path] = Field(description="Folder for the adapter; a run that was cut off there goes on")
    config: Path | None = Field(None, description="YAML file of these settings, or the name of a ready one")
    data: Names = Field((), description="Files, folders or Hub datasets to learn from, comma-separated")
    bidirectional: bool = Field(True, description="Attend both ways; without it, the decoder stays causal")
    lora_r: int = Field(16, ge=1, description="Rank of the adapter")
    lora_alpha: int = Field(32, ge=1, description="Its scale: the change is multiplied by alpha / r")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter")
    lora_targets: Names = Field(PROJECTIONS, description="Modules that are adapted, comma-separated")
    steps: int = Field(1000, ge=1, description="Optimizer steps")
    batch_size: int = Field(32, ge=1, description="Rows of one step, all devices together")
    micro_batch: int = Field(0, ge=0, description="Rows that one device computes at a time; 0: its whole share")
    learning_rate: float = Field(5e-5, gt=0, description="Highest learning rate; it falls to 0 in a line")
    warmup_steps: int = Field(0, ge=0, description="Steps over which it rises")
    schedule_steps: int = Field(
        0, ge=0, description="Steps after which it is 0, for a run that ends before; where fewer, --steps"
    )
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are cut to this norm")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice to keep fewer")
    save_steps: int = Field(200, ge=1, description="Steps between checkpoints; the last two are kept")
    log_steps: int = Field(10, ge=1, description="Steps between the points of the loss curve")
    seed: int = Field(42, ge=0, description="Of the adapter's start, the order of the data and what is dropped")

    @field_validator("config")
    @classmethod
    def _config_exists(cls, value: Path | None) -> Path | None:
        if value is not None:
            config_file(value)
        return value

    @field_validator("data")
    @classmethod
    def _home(cls, value: Names) -> Names:
        return tuple(str(Path(source).expanduser()) if source.startswith("~") else source for source in value)

    @field_validator("dtype")
    @classmethod
    def _can_be_trained(cls, value: DType) -> DType:
        if value in ROUNDED:
            raise ValueError(f"{value} is for serving: train in another dtype")
        if value == "float16":
            raise ValueError("float16 loses small gradients unless the loss is scaled: train in bfloat16 or float32")
        return value

    @field_validator("device")
    @classmethod
    def _is_a_kind(cls, value: str) -> str:
        if value not in ("auto", "cpu", "cuda"):
            raise ValueError(f"training takes auto, cpu or cuda, not {value}: choose GPUs by CUDA_VISIBLE_DEVICES")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if not self.data:
            raise ValueError("no data: name files, folders or Hub datasets with --data")
        if self.save_steps % self.log_steps and self.save_steps < self.steps:
            # A run that goes on knows the loss since its checkpoint alone.
            raise ValueError(f"save_steps {self.save_steps} must be a multiple of log_steps {self.log_steps}")
        return self

    def told(self) -> dict[str, Any]:
        """All settings, as JSON has them, but for where the run leaves its work and from where it was told."""
        return dict(self.model_dump(mode="json", exclude={"out", "config"}))

    @property
    def on_cuda(self) -> bool:
        """Whether it trains on a GPU."""
        import torch  # here, since the help needs none

        return self.device != "cpu" and torch.cuda.is_available()

    @property
    def base_dtype(self) -> DType:
        """What the base is loaded in; `auto` is said of the device that trains, not of the CPU that it is loaded on."""
        import torch

        from l2v.models.loading import computes_bfloat16

        on_cuda = self.dtype == "auto" and self.on_cuda
        return "bfloat16" if on_cuda and computes_bfloat16(torch.device("cuda")) else self.dtype

    def cli_cmd(self) -> None:
        # Serving needs none of what training does, so it is looked for here.
        if any(find_spec(name) is None for name in ("accelerate", "datasets", "matplotlib", "sentence_transformers")):
            raise TrainingError("training needs the extra train: pip install 'l2v[train]'")
        logging.basicConfig(format="%(message)s")
        # One of the processes of `accelerate launch` speaks for all.
        speaks = os.environ.get("RANK", "0") == "0"
        logging.getLogger("l2v.training").setLevel("INFO" if speaks else "WARNING")
        try:
            import_module(f"l2v.training.{self.module}").train(self)
        except KeyboardInterrupt:
            if speaks:
                print(
                    f"l2v: interrupted; the same command goes on from the last checkpoint in {self.out}",
                    file=sys.stderr,
                )
            raise
        except RuntimeError as error:
            from l2v.models.faults import Fault
            from l2v.training.memory import ADVICE

            if Fault.of(error) is not Fault.OUT_OF_MEMORY:
                raise
            raise TrainingError(f"the run needs more memory than is free: {ADVICE}") from error
        if speaks:
            print(f"wrote {self.out}: serve it with `{self.serving}`")

    @property
    def serving(self) -> str:
        """The command that serves what the run makes."""
        return f"l2v serve --model {self.model} --adapters {','.join([*self.adapters, str(self.out)])}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        config = init_settings().get("config")
        if config is None:
            return init_settings, env_settings
        return init_settings, _Yaml(settings_cls, config_file(Path(str(config)))), env_settings


class _Yaml(YamlConfigSettingsSource):
    """The file's settings; one that does not exist is refused rather than ignored."""

    def __init__(self, settings_cls: type[BaseSettings], file: Path) -> None:
        try:
            super().__init__(settings_cls, file)
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is not valid YAML ({' '.join(str(error).split())})") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file} must hold settings, each as `name: value`, in UTF-8") from error

    def __call__(self) -> dict[str, Any]:
        given = super().__call__()
        if unknown := sorted(given.keys() - self.settings_cls.model_fields.keys()):
            raise ValueError(
                f"{self.yaml_file_path} sets {unknown[0]}, which {self.settings_cls.__name__} does not have"
            )
        return given


def config_file(config: Path) -> Path:
    """A YAML file, or the ready one of that name.

    Raises:
        ValueError: if there is neither.
    """
    ready = CONFIGS / f"{config}.yaml"
    if config.is_file():
        return config
    if ready.is_file():
        return ready
    names = ", ".join(sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/*.yaml")))
    raise ValueError(f"{config} is neither a file nor a ready config (those are {names})")


class Mntp(Recipe):
    """Masked next token prediction (paper, section 2.2): learn to use the tokens that stand behind.

    Examples:
        l2v train mntp my-mntp --model meta-llama/Llama-3.2-1B --data texts/
        l2v train mntp my-mntp --config mntp/mistral-7b
        accelerate launch -m l2v.app.cli train mntp my-mntp --config mntp/mistral-7b
    """

    module = "mntp"

    mask_token: Literal["_", "mask", "eos"] = Field("_", description="What hides a token: `_`, a mask token, the end")
    masking: float = Field(0.2, gt=0, lt=1, description="Share of the tokens that are predicted")
    collator: Literal["default", "all_mask"] = Field(
        "default", description="`default`: 80 % hidden, 10 % another token, 10 % as it is; `all_mask`: all hidden"
    )


class Contrastive(Recipe):
    """What both contrastive stages share."""

    module = "contrastive"

    scale: float = Field(20.0, gt=0, description="Cosines are multiplied by this in the loss")


class Simcse(Contrastive):
    """Unsupervised SimCSE (paper, section 2.3): each text twice under dropout, all others in the batch against it.

    Examples:
        l2v train simcse my-simcse --model meta-llama/Llama-3.2-1B --adapters my-mntp --data sentences.txt
    """

    batch_size: int = Field(128, ge=2, description="Rows of one step, all devices together")
    max_length: int | None = Field(128, ge=8, description="Longest row in tokens")
    learning_rate: float = Field(3e-5, gt=0, description="Highest learning rate; it falls to 0 in a line")
    dropout: float = Field(0.3, gt=0, lt=1, description="Dropout of the attention's weights")


class Supervised(Contrastive):
    """Supervised contrastive learning (paper, section 4): a query, what answers it, and what does not.

    Examples:
        l2v train supervised my-encoder --model meta-llama/Llama-3.2-1B --adapters my-mntp --data nli.jsonl,qa.jsonl
    """

    batch_size: int = Field(512, ge=2, description="Rows of one step, all devices together")
    learning_rate: float = Field(2e-4, gt=0, description="Highest learning rate; it falls to 0 in a line")
    warmup_steps: int = Field(300, ge=0, description="Steps over which it rises")
    scale: float = Field(50.0, gt=0, description="Cosines are multiplied by this in the loss")
    hard_negatives: int = Field(1, ge=0, description="How many of a row's negatives are taken")
    distillation: float = Field(
        0.0, ge=0, le=1, description="Share of the loss that is the distance to the vectors of a teacher in the rows"
    )
