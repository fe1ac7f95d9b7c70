"""The settings of a training run, one class per stage. Each field is a flag and a key of the YAML file."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, PydanticBaseSettingsSource

from l2v.models.settings import ModelSettings, Names
from l2v.models.types import QUANTIZED, Attention, DType
from l2v.training.columns import Mappings
from l2v.training.config_file import ConfigFile, find_config

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Recipe(ModelSettings):
    """The settings that all stages share. Flags override the YAML file, which overrides the environment.

    Attributes:
        module: the module of `l2v.training` that trains with these settings.
    """

    module: ClassVar[str]

    model: str = Field(
        "",
        description="Base model to train, required here or in the config: a Hub id (`id` or `id@revision`) or folder",
    )
    out: CliPositionalArg[Path] = Field(
        description="Output folder for the adapter; an interrupted run there is resumed"
    )
    config: Path | None = Field(None, description="YAML file with these settings, or the name of a ready-made config")
    data: Names = Field((), description="Files, folders or Hub datasets to train on, comma-separated")
    columns: Mappings = Field(
        (), description="Columns whose names differ from the fields', like `query=question,positive=answer`"
    )
    attention: Attention | None = Field(None, description="Attention to train with; default: bidirectional")
    bidirectional: bool = Field(True, description="Train with bidirectional rather than causal attention")
    lora_r: int = Field(16, ge=1, description="LoRA rank")
    lora_alpha: int = Field(32, ge=1, description="LoRA alpha: the adapter's output is scaled by alpha / rank")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input")
    lora_targets: Names = Field(PROJECTIONS, description="Modules to adapt, comma-separated")
    steps: int = Field(1000, ge=1, description="Optimizer steps")
    batch_size: int = Field(32, ge=1, description="Rows per step, over all devices")
    micro_batch: int = Field(0, ge=0, description="Rows per device and forward pass; 0 means all rows of the device")
    learning_rate: float = Field(5e-5, gt=0, description="Peak learning rate; it decays linearly to 0")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warmup")
    schedule_steps: int = Field(0, ge=0, description="Steps until the learning rate reaches 0, if more than --steps")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in the backward pass to save memory")
    save_steps: int = Field(200, ge=1, description="Steps between checkpoints; the last two are kept")
    log_steps: int = Field(10, ge=1, description="Steps between points of the loss curve")
    seed: int = Field(42, ge=0, description="Seed for the adapter's weights, the data order, masks and dropout")
    report_to: Names = Field(
        (), description="Trackers to send the loss to, such as tensorboard, wandb or mlflow, comma-separated"
    )

    @field_validator("config")
    @classmethod
    def _config_exists(cls, value: Path | None) -> Path | None:
        if value is not None:
            find_config(value)
        return value

    @field_validator("data")
    @classmethod
    def _expand_home(cls, value: Names) -> Names:
        return tuple(str(Path(source).expanduser()) if source.startswith("~") else source for source in value)

    @field_validator("lora_modules")
    @classmethod
    def _one_encoder(cls, value: dict[str, str]) -> dict[str, str]:
        if value:
            raise ValueError("training takes one encoder: name the adapters that it starts from in --adapters")
        return value

    @field_validator("dtype")
    @classmethod
    def _dtype_is_trainable(cls, value: DType) -> DType:
        if value in QUANTIZED:
            raise ValueError(f"{value} is for inference only: train in bfloat16 or float32")
        if value == "float16":
            raise ValueError("float16 loses small gradients without loss scaling: train in bfloat16 or float32")
        return value

    @field_validator("device")
    @classmethod
    def _device_is_known(cls, value: str) -> str:
        if value not in ("auto", "cpu", "cuda"):
            raise ValueError(
                f"training supports auto, cpu and cuda, not {value}: select GPUs with CUDA_VISIBLE_DEVICES"
            )
        return value

    @model_validator(mode="after")
    def _settings_are_consistent(self) -> "Recipe":
        if self.attention == "bidirectional" and not self.bidirectional:
            raise ValueError("attention bidirectional contradicts bidirectional false: set one of them")
        if not self.data:
            raise ValueError("no training data: pass files, folders or Hub datasets with --data")
        if not self.model:
            raise ValueError("no model: pass a base model with --model, or a --config that names one")
        if self.save_steps % self.log_steps and self.save_steps < self.steps:
            # A resumed run averages the loss from its checkpoint on, so each checkpoint must start a logging interval.
            raise ValueError(f"save_steps {self.save_steps} must be a multiple of log_steps {self.log_steps}")
        return self

    @property
    def causal(self) -> bool:
        """Whether the adapter is trained with causal attention."""
        return self.attention == "causal" or not self.bidirectional

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON values, except those that do not affect the result."""
        return dict(self.model_dump(mode="json", exclude={"out", "config", "report_to"}))

    @property
    def on_cuda(self) -> bool:
        """Whether the run trains on a GPU."""
        import torch  # imported here, so that `l2v train --help` does not wait for it

        return self.device != "cpu" and torch.cuda.is_available()

    @property
    def base_dtype(self) -> DType:
        """The dtype to load the base in. The base is loaded on the CPU, but `auto` depends on the training device."""
        import torch

        from l2v.models.devices import computes_bfloat16

        if self.dtype != "auto" or not self.on_cuda:
            return self.dtype
        return "bfloat16" if computes_bfloat16(torch.device("cuda")) else "float32"

    @property
    def serve_command(self) -> str:
        """The command that serves the trained adapter."""
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
        return init_settings, ConfigFile(settings_cls, find_config(Path(str(config)))), env_settings


class Mntp(Recipe):
    """Masked next token prediction (paper, section 2.2): teach the decoder to use the tokens to the right.

    Examples:
        l2v train mntp my-mntp --model meta-llama/Llama-3.2-1B --data texts/
        l2v train mntp my-mntp --config mntp/mistral-7b
        accelerate launch -m l2v.app.cli train mntp my-mntp --config mntp/mistral-7b
    """

    module = "mntp"

    mask_token: Literal["_", "mask", "eos"] = Field(
        "_", description="Token that replaces masked tokens: `_`, or the tokenizer's mask token or end token"
    )
    masking: float = Field(0.2, gt=0, lt=1, description="Fraction of tokens to predict")
    collator: Literal["default", "all_mask"] = Field(
        "default",
        description="`default`: mask 80 % of the tokens to predict, replace 10 % at random, keep 10 %; `all_mask`: "
        "mask all",
    )


class Contrastive(Recipe):
    """The settings that both contrastive stages share."""

    module = "contrastive"

    scale: float = Field(20.0, gt=0, description="Factor on cosine similarities in the loss (inverse temperature)")


class Simcse(Contrastive):
    """Unsupervised SimCSE (paper, section 2.3): match two dropout views of a text against the rest of the batch.

    Examples:
        l2v train simcse my-simcse --model meta-llama/Llama-3.2-1B --adapters my-mntp --data sentences.txt
    """

    batch_size: int = Field(128, ge=2, description="Rows per step, over all devices")
    max_length: int | None = Field(128, ge=8, description="Maximum row length in tokens")
    learning_rate: float = Field(3e-5, gt=0, description="Peak learning rate; it decays linearly to 0")
    dropout: float = Field(0.3, gt=0, lt=1, description="Dropout on attention weights")


class Supervised(Contrastive):
    """Supervised contrastive learning (paper, section 4) on queries with positives and hard negatives.

    Examples:
        l2v train supervised my-encoder --model meta-llama/Llama-3.2-1B --adapters my-mntp --data nli.jsonl,qa.jsonl
    """

    batch_size: int = Field(512, ge=2, description="Rows per step, over all devices")
    learning_rate: float = Field(2e-4, gt=0, description="Peak learning rate; it decays linearly to 0")
    warmup_steps: int = Field(300, ge=0, description="Steps of linear warmup")
    scale: float = Field(50.0, gt=0, description="Factor on cosine similarities in the loss (inverse temperature)")
    hard_negatives: int = Field(1, ge=0, description="Hard negatives to use per row")
    distillation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Weight of the distillation loss: the cosine distance to the teacher's vectors in the data",
    )
