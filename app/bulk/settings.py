"""Settings of the embedding commands: the model or service to use, and the options of `l2v embed`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, Field, SecretStr, model_validator
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.choice import ChoiceSettings
from l2v.app.bulk.formats import InputFormat, OutputFormat, input_format, output_format
from l2v.app.bulk.options import Columns, EmbedOptions
from l2v.app.engine.output_types import OutputDtype
from l2v.models.settings import Names

if TYPE_CHECKING:
    from l2v.app.bulk.local import LocalEmbedder
    from l2v.app.bulk.remote import RemoteEmbedder

# The options that a resumed run must repeat. Other options don't affect the output.
_IDENTITY = {
    "column",
    "instruction",
    "instruction_column",
    "prompt_name",
    "keep",
    "dimensions",
    "normalize",
    "output_dtype",
}


class ClientSettings(ChoiceSettings):
    """The model to load, or the address of a service to use instead."""

    url: str | None = Field(None, description="Use the service at this address; flags about the model have no effect")
    api_key: SecretStr | None = Field(None, description="Bearer key of the service; safer in the variable L2V_API_KEY")
    retry_for: float = Field(300.0, gt=0, description="Seconds to retry while the service is busy or unreachable")
    max_batch_tokens: int | None = Field(
        None, ge=8, description="Token budget of one forward pass; default: 16384 on CUDA, 4096 on the CPU"
    )

    def open_embedder(
        self, options: EmbedOptions, concurrency: int = 4, note: Callable[[str], None] | None = None
    ) -> "LocalEmbedder | RemoteEmbedder":
        """An embedder that uses the service at `url` if that is set, otherwise a model loaded in this process.

        Args:
            options: how to embed.
            concurrency: the maximum number of requests to the service at a time.
            note: see `Client`.
        """
        if self.url:
            from l2v.app.bulk.remote import RemoteEmbedder

            key = self.api_key.get_secret_value() if self.api_key else None
            return RemoteEmbedder(self.url, key, self.model_name, options, concurrency, self.retry_for, note)
        self.announce()
        encoder = self.load_chosen(on_declared=options.check)
        from l2v.app.bulk.local import LocalEmbedder
        from l2v.models.batch import token_budget

        return LocalEmbedder(encoder, self.chosen_name, options, self.max_batch_tokens or token_budget(encoder.device))


class RunSettings(BaseModel):
    """What to read, how to embed it, and where to write it."""

    input: CliPositionalArg[str] = Field(description="File to read (.txt, .csv, .jsonl, .parquet), or `-`")
    output: CliPositionalArg[str] = Field(description="File to write (.parquet, .jsonl, .npy), or `-`")
    format: InputFormat | None = Field(None, description="Input format; default: by the extension")
    output_format: OutputFormat | None = Field(None, description="Output format; default: by the extension")
    column: str = Field("text", description="Column or JSON field with the text")
    instruction: str | None = Field(None, description="Instruction for rows without their own")
    instruction_column: str | None = Field(None, description="Column or JSON field with each row's instruction")
    prompt_name: str | None = Field(
        None, description="Named prompt of the model or the service, instead of --instruction"
    )
    keep: Names = Field((), description="Columns to copy to the output (Parquet or JSONL), comma-separated")
    dimensions: int | None = Field(None, ge=1, description="Keep this many leading dimensions, before normalizing")
    normalize: bool = Field(True, description="Scale each vector to length 1")
    output_dtype: OutputDtype = Field(
        "float", description="Type of the numbers; int8 and uint8 take 1 byte per dimension, binary and ubinary 1 bit"
    )
    batch_size: int = Field(256, ge=1, description="Rows per batch, or per request to the service")
    skip_bad: Path | None = Field(None, description="Write bad rows to this JSONL file and continue")
    overwrite: bool = Field(False, description="Replace an existing OUTPUT")

    @model_validator(mode="after")
    def _flags_fit_together(self) -> Self:
        files = [Path(path).resolve() for path in (self.input, self.output, self.skip_bad) if path and path != "-"]
        from_text, to_npy = self.source_format == "text", self.sink_format == "npy"
        conflicts = {
            "standard input cannot be Parquet: name the file": self.input == "-" and self.source_format == "parquet",
            "--keep: a text file has no columns": from_text and self.keep,
            "--instruction-column: a text file has no columns": from_text and self.instruction_column,
            "--keep: .npy files hold only vectors": to_npy and self.keep,
            "--keep: names a column twice": len(set(self.keep)) < len(self.keep),
            "--keep: the output has its own column `embedding`": "embedding" in self.keep,
            "--prompt-name and --instruction exclude each other": self.prompt_name and self.instruction is not None,
            "INPUT, OUTPUT and --skip-bad must be different files": len(set(files)) < len(files),
        }
        if found := next((message for message, present in conflicts.items() if present), None):
            raise ValueError(found)
        return self

    @property
    def source_format(self) -> InputFormat:
        return input_format(self.input, self.format)

    @property
    def sink_format(self) -> OutputFormat:
        return output_format(self.output, self.output_format)

    @property
    def columns(self) -> Columns:
        return Columns(self.column, self.instruction_column, self.keep)

    @property
    def embed_options(self) -> EmbedOptions:
        return EmbedOptions(self.instruction, self.prompt_name, self.dimensions, self.normalize, self.output_dtype)

    @property
    def identity(self) -> dict[str, Any]:
        """The options that a resumed run must repeat."""
        options = self.model_dump(mode="json", include=_IDENTITY)
        return options | {"format": self.source_format, "output_format": self.sink_format}
