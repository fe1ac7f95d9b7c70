"""The settings that serving, exporting and training share: which encoder to load, and how."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from l2v.models.templates import TemplateName
from l2v.models.types import Attention, DType, Pooling, Semantics

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder

PREFIX = "L2V_"


def split_names(value: object) -> object:
    """Splits a comma-separated string into a tuple. Returns any other value unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_names)]


def split_modules(value: object) -> object:
    """Splits `name=source[,name=source…]` into a dictionary. Returns any other value unchanged.

    Raises:
        ValueError: if a part is not of this form, or a name occurs twice.
    """
    if not isinstance(value, str):
        return value
    modules: dict[str, str] = {}
    for part in filter(None, map(str.strip, value.split(","))):
        name, equals, source = (piece.strip() for piece in part.partition("="))
        if not (name and equals and source):
            raise ValueError(f"{part} must be name=source")
        if name in modules:
            raise ValueError(f"the name {name} occurs twice")
        modules[name] = source
    return modules


Modules = Annotated[dict[str, str], NoDecode, BeforeValidator(split_modules)]


class ModelSettings(BaseSettings):
    """Which encoder to load, and how."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore", protected_namespaces=()
    )

    model: str = Field(
        "demo",
        description="Base model, LLM2Vec repository or merged export: a Hub id (`id` or `id@revision`), a folder, or a "
        "short name of a published model",
    )
    adapters: Names = Field(
        (), description="Adapters to merge, in order, after those that come with the model; comma-separated"
    )
    lora_modules: Modules = Field(
        {},
        description="LoRA adapters to apply unmerged on top of the model, chosen by name per request: "
        "`name=source[,name=source…]`, each source a Hub id or a folder",
    )
    dtype: DType = Field(
        "auto",
        description="`auto`: bfloat16 on Ampere or newer GPUs and on CPUs with native bfloat16, else float32; `int8`: "
        "8-bit integers, on CPUs with VNNI; `fp8`: 8-bit floats, on Ada, Hopper or newer GPUs; or `bfloat16`, "
        "`float16`, `float32`",
    )
    device: str = Field("auto", description="`auto`: CUDA if available, else the CPU; or any torch device")
    semantics: Semantics | None = Field(
        None,
        description="How to combine and pool instruction and text: `sentence-transformers` puts the "
        "instruction before the text verbatim and pools it too; `llm2vec` does not pool it, and ignores the model's "
        "sentence-transformers files. Default: `sentence-transformers` for a model with such files, else `llm2vec`",
    )
    attention: Attention | None = Field(
        None,
        description="`bidirectional` or `causal`; default: what the model's files declare, else `causal` for a model "
        "with sentence-transformers files and `bidirectional` for any other",
    )
    pooling: Pooling | None = Field(None, description="Pooling mode; default: the model's own setting, else `mean`")
    max_length: int | None = Field(
        None,
        ge=8,
        description="Maximum tokens of an input, with its instruction; default: the model's own setting, else 512",
    )
    doc_max_length: int | None = Field(
        None,
        ge=1,
        description="Maximum tokens of a text, before its instruction is added; default: the model's own setting, else "
        "400; for a model with sentence-transformers files, only `max_length` applies",
    )
    skip_instruction: bool | None = Field(
        None, description="Exclude the instruction from pooling; default: the model's own setting, else true"
    )
    ignore_tensors: Names = Field(
        (),
        description="Patterns (`*`, `?`) of tensors to ignore in the base and the adapters, comma-separated. Tensors "
        "that no encoder needs are always ignored; any other tensor without a place in the model is refused",
    )
    template: TemplateName | None = Field(
        None, description="Chat template around each input; default: the model's own setting, else its base model's"
    )

    def announce(self) -> None:
        """Prints on a terminal which model is loaded. Call it before torch is imported, which takes seconds."""
        if sys.stderr.isatty():
            print(f"l2v: loading {self.model} …", file=sys.stderr, flush=True)  # noqa: T201

    def load(self, *, prepack: bool = True, **overrides: Any) -> "Encoder":
        """Prepares this process, and loads the encoder. Raises `ModelError` if that fails.

        Args:
            prepack: see `models.load`.
            overrides: values to use instead of this object's settings, by name.
        """
        from l2v.models.runtime import prepare_libraries

        prepare_libraries()
        from l2v.models.loading import load  # imports torch; imported here, so that `--help` does not wait for it

        return load(**{name: getattr(self, name) for name in ModelSettings.model_fields} | overrides, prepack=prepack)
