"""Settings: one field is an environment variable, a flag, its help text and its row in the docs."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AnyHttpUrl, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from l2v.app.engine.prompts import Prompts
from l2v.app.http.schemas.inputs import MAX_INPUTS
from l2v.models.settings import PREFIX, ModelSettings, Names, split_names

_PORT = 8080
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#\s]+")


def _split_secrets(value: object) -> object:
    parts = split_names(value)
    if value and not parts:
        raise ValueError("holds no key, and so would leave the service open")
    return parts


def _check_origins(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not _ORIGIN.fullmatch(name):
            raise ValueError(f"{name} is not an origin like https://example.com, nor *")
    return names


def _own_port(value: object) -> object:
    # Kubernetes tells the pods beside a Service that is called l2v where it is: L2V_PORT=tcp://10.0.0.7:8080.
    return _PORT if isinstance(value, str) and value.startswith("tcp://") else value


Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_secrets)]


class Settings(ModelSettings):
    """Everything the service can be told."""

    compile: bool = Field(
        False, description="Compile the decoder's layers while they serve; needs a C++ compiler (on CUDA, a C compiler)"
    )
    prompts: Path | None = Field(None, description="JSON file of named prompts: {name: instruction}")
    query_instruction: str = Field("", description="Default instruction of queries, and the prompt `query`")
    document_instruction: str = Field("", description="Default instruction of documents, and the prompt `document`")
    playground: bool = Field(True, description="Serve the web page at `/`")
    cors_origins: Annotated[Names, AfterValidator(_check_origins)] = Field(
        (), description="Origins whose pages may call the API, comma-separated; `*`: all"
    )
    otlp_endpoint: AnyHttpUrl | None = Field(
        None,
        description="Address of an OpenTelemetry collector (OTLP over HTTP) for traces; unset: none; needs `l2v[otel]`",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` for all")
    port: Annotated[int, BeforeValidator(_own_port)] = Field(
        _PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one"
    )
    api_keys: Secrets = Field((), description="Bearer keys, any of which opens the API, comma-separated; unset: open")
    api_keys_file: Path | None = Field(
        None, description="File of such keys, one a line, as Docker and Kubernetes mount secrets; read at start"
    )
    protect_metrics: bool = Field(False, description="Ask for a key at `/metrics` and `/tei/metrics` too")
    protect_docs: bool = Field(False, description="Ask for a key at `/docs` and `/openapi.json` too")
    max_batch_tokens: int | None = Field(
        None,
        ge=8,
        description="Token budget of one forward pass; where unset, 16384 on CUDA, and on the CPU 4096, or fewer if "
        "those took more than ten seconds",
    )
    max_queue_tokens: int = Field(
        1_048_576, ge=1, description="Tokens that may wait; once so many do, requests get 429"
    )
    max_requests: int = Field(
        512, ge=1, description="Requests in progress (body received, answer not begun); beyond it they get 429"
    )
    max_connections: int = Field(2048, ge=1, description="Open connections, idle ones too; beyond it they get 429")
    max_inputs: int = Field(
        2048, ge=1, le=MAX_INPUTS, description="Inputs in one request, both sides of a similarity together"
    )
    max_characters: int = Field(100_000, ge=1, description="Characters of one text or instruction")
    max_body_bytes: int = Field(16_777_216, ge=1, description="Size of a request's body")
    max_total_body_bytes: int = Field(
        536_870_912, ge=1, description="Size of the bodies of all requests and answers together; beyond it they get 429"
    )
    max_header_bytes: int = Field(
        32_768, ge=1024, description="Size of a request's path and headers, 32 bytes added for each header"
    )
    request_timeout: float = Field(
        120.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds until a request is given up with 504; its client has as long again to read the answer",
    )
    idle_timeout: float = Field(
        75.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that a connection may stand without a whole request head until it is closed",
    )
    engine_timeout: float = Field(
        120.0,
        ge=2,
        allow_inf_nan=False,
        description="Seconds of one forward pass until the engine counts as hung, and the process ends",
    )
    drain_timeout: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that SIGTERM leaves for what was accepted; new requests get 503",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")

    def read_prompts(self) -> Prompts:
        """The named prompts; raises `ValueError` for a file that is none."""
        return Prompts.read(self.prompts, self.query_instruction, self.document_instruction)

    def read_keys(self) -> tuple[str, ...]:
        """The keys given and those of the file; raises `ValueError` for a file that holds none."""
        given = tuple(key.get_secret_value() for key in self.api_keys)
        if self.api_keys_file is None:
            return given
        try:
            lines = self.api_keys_file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise ValueError(f"{self.api_keys_file} cannot be read ({reason})") from error
        if not (found := tuple(line.strip() for line in lines if line.strip())):
            raise ValueError(f"{self.api_keys_file} holds no key, and so would leave the service open")
        return given + found

    @model_validator(mode="after")
    def _a_body_has_room(self) -> "Settings":
        if self.max_total_body_bytes < self.max_body_bytes:
            raise ValueError("max_total_body_bytes must be at least max_body_bytes")
        return self

    @model_validator(mode="after")
    def _keys_can_be_read(self) -> "Settings":
        if self.read_keys():
            return self
        if self.protect_metrics or self.protect_docs:
            raise ValueError("protect_metrics and protect_docs need api_keys or api_keys_file")
        if os.environ.get(f"{PREFIX}API_KEY"):
            raise ValueError(
                f"{PREFIX}API_KEY is what clients show: give the service its keys as {PREFIX}API_KEYS, or unset it to "
                "serve openly"
            )
        return self

    @model_validator(mode="after")
    def _tracing_is_installed(self) -> "Settings":
        if self.otlp_endpoint and not _is_installed("opentelemetry.instrumentation.fastapi"):
            raise ValueError("otlp_endpoint needs the extra otel: pip install 'l2v[otel]'")
        return self

    @model_validator(mode="after")
    def _prompts_can_be_read(self) -> "Settings":
        self.read_prompts()
        return self


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| variable | flag | default | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, (), "") else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | `--{name.replace('_', '-')}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
