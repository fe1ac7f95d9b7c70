"""Which encoder to load, and how: the settings that serving, exporting and training share."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from l2v.models.templates import TemplateName
from l2v.models.types import DType, Pooling

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder

PREFIX = "L2V_"


def split_names(value: object) -> object:
    """A comma-separated text as a tuple of its parts; anything else as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_names)]


class ModelSettings(BaseSettings):
    """Which encoder to load, and how."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        protected_namespaces=(),
    )

    model: str = Field(
        "demo",
        description="Base model, LLM2Vec repository or merged export: a Hub id (`id` or `id@revision`), a folder, or a "
        "short name of a published stack",
    )
    adapters: Names = Field(
        (), description="Adapters merged in order, after those that come with the model, comma-separated"
    )
    dtype: DType = Field(
        "auto",
        description="`auto`: bfloat16 on GPUs (from Ampere on) and CPUs that compute in it, else float32; `int8`: "
        "products of 8-bit integers on CPUs with VNNI; `fp8`: of 8-bit floats on GPUs from Ada and Hopper on; or "
        "`bfloat16`, `float16`, `float32`",
    )
    device: str = Field("auto", description="`auto`: CUDA if there is one, else the CPU; or any torch device")
    pooling: Pooling | None = Field(None, description="Where unset, what the model says, else `mean`")
    max_length: int | None = Field(None, ge=8, description="Longest row in tokens; where unset, the model's, else 512")
    doc_max_length: int | None = Field(
        None, ge=1, description="Longest text in tokens, before its instruction; where unset, the model's, else 400"
    )
    skip_instruction: bool | None = Field(
        None, description="Pool the text alone, not its instruction; where unset, the model's, else true"
    )
    template: TemplateName | None = Field(None, description="Template around each input; where unset, the base model's")

    def load(self, *, packed: bool = True, **instead: Any) -> "Encoder":
        """The encoder that they name, see `models.load`; raises `ModelError`.

        Args:
            packed: see there.
            instead: settings to take in place of these.
        """
        from l2v.models.loading import load  # here, since the command's help does not wait for torch

        return load(**{name: getattr(self, name) for name in ModelSettings.model_fields} | instead, packed=packed)
