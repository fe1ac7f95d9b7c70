"""The settings. Each field defines an environment variable, a flag, its help text and its row in the docs."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    SecretStr,
    StrictStr,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_settings import NoDecode

from l2v.models.settings import PREFIX, ModelSettings, Names, split_names
from l2v.models.types import text_fault

# The highest value that `max_inputs` may have.
MAX_INPUTS = 65_536
# Parts of the API's paths. A model with one of these names could not be chosen by the path /tei/{name}/….
_ROUTES = {
    *("docs", "embed", "health", "info", "metrics", "openapi.json", "playground", "prompts", "ready", "similarity"),
    *("decode", "embed_all", "embeddings", "ping", "tei", "tokenize", "v1"),
}
_MODEL_NAME = re.compile(r"(?!.*//)[A-Za-z0-9][A-Za-z0-9._:@+/-]*(?<!/)")


def check_model_name(name: str) -> str:
    """Returns the name of a model; raises `ValueError` if a path cannot contain it."""
    if len(name) > 100 or not _MODEL_NAME.fullmatch(name):
        raise ValueError(f"{name} cannot name a model: use up to 100 letters, digits and . _ : @ + - /")
    if route := next((part for part in name.split("/") if part in _ROUTES or not part.strip(".")), ""):
        raise ValueError(f"{name} cannot name a model, since {route} is a part of the API's paths: use another name")
    return name


# To count the characters, pydantic decodes the text, and so rejects lone surrogates before a message repeats them.
ModelName = Annotated[StrictStr, Field(max_length=100), AfterValidator(check_model_name)]
ModelNames = Annotated[tuple[ModelName, ...], NoDecode, BeforeValidator(split_names)]
PromptName = Annotated[StrictStr, Field(min_length=1, max_length=100)]
_PROMPTS = TypeAdapter(dict[PromptName, StrictStr])
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")


def _split_secrets(value: object) -> object:
    parts = split_names(value)
    if value and not parts:
        raise ValueError("contains no key, which would leave the service open")
    return parts


def _check_origins(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _ORIGIN.fullmatch(name):
            raise ValueError(f"{name} is neither an origin like https://example.com nor *")
    return names


def _ignore_service_link(value: object) -> object:
    # If there is a Service named l2v, Kubernetes sets L2V_PORT=tcp://10.0.0.7:8080 in the pods. This is no setting, so
    # the default applies.
    return 8080 if isinstance(value, str) and value.startswith("tcp://") else value


Origins = Annotated[Names, AfterValidator(_check_origins)]
Port = Annotated[int, BeforeValidator(_ignore_service_link)]
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_secrets)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Settings(ModelSettings):
    """All settings of the service."""

    served_model_name: ModelNames = Field(
        (),
        description="Names for the base model that replace the name of its source, comma-separated. Requests may use "
        "any of these names; responses contain the first",
    )
    runtime_adapters: Path | None = Field(
        None,
        description="Folder from which `POST /v1/load_lora_adapter` may load adapters while the service runs; requires "
        "`api_keys`. Default: adapters cannot be changed",
    )
    runtime_adapters_from_hub: bool = Field(False, description="Let `/v1/load_lora_adapter` load from the Hub too")
    max_lora_modules: Count = Field(256, description="Maximum adapters, including those of `lora_modules`")
    max_lora_bytes: Count = Field(
        8_589_934_592, description="Maximum bytes of all adapters; beyond that, `/v1/load_lora_adapter` loads no more"
    )
    compile: bool = Field(
        False, description="Compile the decoder layers while serving; requires a C++ compiler, and no LoRA modules"
    )
    prompts: Path | None = Field(None, description="JSON file of named prompts: {name: instruction}")
    query_instruction: str = Field("", description="Default instruction for queries; also the prompt `query`")
    document_instruction: str = Field("", description="Default instruction for documents; also the prompt `document`")
    playground: bool = Field(True, description="Serve the web page at `/`")
    cors_origins: Origins = Field((), description="Origins whose pages may call the API, comma-separated; `*` for all")
    otlp_endpoint: AnyHttpUrl | None = Field(
        None, description="OpenTelemetry collector for traces (OTLP over HTTP); requires the extra `otel`"
    )
    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` for all interfaces")
    port: Port = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one")
    http_workers: int = Field(
        1, ge=1, le=64, description="Processes that handle HTTP; if more than 1, the engine has a process of its own"
    )
    api_keys: Secrets = Field((), description="Bearer keys for the API, comma-separated; without keys, the API is open")
    api_keys_file: Path | None = Field(
        None, description="File with one key per line, read at startup; lines that start with # are comments"
    )
    protect_metrics: bool = Field(False, description="Require a key for `/metrics` and `/tei/metrics` too")
    protect_docs: bool = Field(False, description="Require a key for `/docs` and `/openapi.json` too")
    max_batch_tokens: int | None = Field(
        None,
        ge=8,
        description="Token budget of one forward pass. Default: 16384 on CUDA; 4096 on a CPU, or fewer if such a pass "
        "takes more than ten seconds",
    )
    max_queue_tokens: Count = Field(1_048_576, description="Maximum tokens in the queue; beyond that, requests get 429")
    max_requests: Count = Field(
        512, description="Maximum requests in progress, from the end of the request body to the start of the response"
    )
    max_connections: Count = Field(2048, description="Maximum open connections, including idle ones")
    max_inputs: Count = Field(
        2048, le=MAX_INPUTS, description="Maximum inputs per request, queries and documents together"
    )
    max_characters: Count = Field(100_000, description="Maximum characters of one text or instruction")
    max_body_bytes: Count = Field(16_777_216, description="Maximum bytes of a request body")
    max_total_body_bytes: Count = Field(
        536_870_912, description="Maximum bytes of all request and response bodies together"
    )
    max_header_bytes: int = Field(
        32_768, ge=1024, description="Maximum bytes of path and headers; each header counts 32 bytes extra"
    )
    request_timeout: Seconds = Field(
        120.0, description="Seconds before a request fails with 504, and seconds for the client to read a response"
    )
    idle_timeout: Seconds = Field(
        75.0, description="Seconds before a connection without a complete request header is closed"
    )
    engine_timeout: Seconds = Field(
        120.0,
        ge=2,
        description="Seconds before a forward pass or a front end counts as hung; a hung forward pass ends the process",
    )
    drain_timeout: Seconds = Field(30.0, description="Seconds to finish accepted requests after SIGTERM")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log messages; `ready` is logged at `warning` too"
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto",
        description="`text`: a line for people; `json`: an object per line; `auto`: text on a terminal, else JSON",
    )

    @property
    def url(self) -> str:
        """The address for a browser on this machine: that of the web page if it is served, else that of the API."""
        host = "localhost" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}{'/' if self.playground else ''}"

    @property
    def base_names(self) -> tuple[str, ...]:
        """The names of the base, at least one."""
        if self.served_model_name:
            return self.served_model_name
        from l2v.models.sources import label  # the import of the Hub's client takes a second

        return (label(self.model),)

    def read_prompts(self) -> dict[str, str]:
        """The prompts in the file `prompts`.

        If `query_instruction` or `document_instruction` is set, it replaces the file's prompt `query` or `document`.

        Raises:
            ValueError: the file cannot be read, it is not a JSON object of names and instructions, or an instruction
                is not valid text.
        """
        prompts = {}
        if self.prompts:
            try:
                prompts = _PROMPTS.validate_json(self.prompts.read_bytes())
            except OSError as error:
                raise ValueError(f"{self.prompts} cannot be read ({error.strerror})") from error
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise ValueError(f"{self.prompts} is not a JSON object of names and instructions ({reason})") from error
        for name in ("query", "document"):
            if text := getattr(self, f"{name}_instruction"):
                prompts[name] = text
        for name, text in prompts.items():
            if fault := text_fault(text):
                raise ValueError(f"the prompt {name} {fault}")
        return prompts

    def read_keys(self) -> tuple[str, ...]:
        """The keys from `api_keys` and `api_keys_file`. Raises `ValueError` if the file is unreadable or has no key."""
        keys = tuple(key.get_secret_value() for key in self.api_keys)
        if self.api_keys_file is None:
            return keys
        try:
            lines = self.api_keys_file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ValueError(f"{self.api_keys_file} cannot be read ({reason})") from error
        if not (found := tuple(key for line in lines if (key := line.strip()) and not key.startswith("#"))):
            raise ValueError(f"{self.api_keys_file} contains no key, which would leave the service open")
        return keys + found

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        """Rejects settings that contradict each other, and files that cannot be read."""
        if self.max_total_body_bytes < self.max_body_bytes:
            raise ValueError("max_total_body_bytes must be at least max_body_bytes")
        if not self.read_keys():
            if self.protect_metrics or self.protect_docs:
                raise ValueError("protect_metrics and protect_docs require api_keys or api_keys_file")
            if os.environ.get(f"{PREFIX}API_KEY"):
                raise ValueError(
                    "L2V_API_KEY is a client's key: set L2V_API_KEYS to the service's keys, or unset L2V_API_KEY"
                )
        if self.otlp_endpoint and not _is_installed("opentelemetry.instrumentation.fastapi"):
            raise ValueError("otlp_endpoint requires the extra otel: pip install '.[otel]'")
        self.read_prompts()
        self._check_models()
        return self

    def _check_models(self) -> None:
        for name in self.lora_modules:
            check_model_name(name)
            if name in self.base_names:
                raise ValueError(f"lora_modules has the name {name}, which is that of the base: use another name")
        if (count := len(self.lora_modules)) > self.max_lora_modules:
            raise ValueError(
                f"lora_modules has {count} adapters; the maximum is {self.max_lora_modules} (max_lora_modules)"
            )
        if self.compile and (self.lora_modules or self.runtime_adapters is not None):
            other = "lora_modules" if self.lora_modules else "runtime_adapters"
            raise ValueError(
                f"compile cannot be combined with {other}: compiled layers cannot apply adapters, so use one of the two"
            )
        if self.runtime_adapters_from_hub and self.runtime_adapters is None:
            raise ValueError("runtime_adapters_from_hub requires runtime_adapters")
        if self.runtime_adapters is not None:
            if not self.runtime_adapters.is_dir():
                raise ValueError(f"runtime_adapters: {self.runtime_adapters} is not a folder")
            if not self.read_keys():
                raise ValueError(
                    "runtime_adapters requires api_keys or api_keys_file: without keys, anyone could load adapters"
                )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
