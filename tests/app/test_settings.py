"""Settings: parsing, validation and the generated table."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from docs.pages import settings_table
from l2v.app.commands.serve import unknown
from l2v.app.engine.service import Service
from l2v.app.engine.startup import start
from l2v.app.metrics import Metrics
from l2v.app.settings import Settings
from l2v.models import Encoder
from l2v.models.errors import ModelError


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2V_ADAPTERS", "a/b@v1, ./c,,")
    monkeypatch.setenv("L2V_API_KEYS", "one,two")
    settings = Settings()
    assert settings.adapters == ("a/b@v1", "./c")
    assert [key.get_secret_value() for key in settings.api_keys] == ["one", "two"]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files pass unset variables as empty ones."""
    for name in ("MODEL", "ADAPTERS", "API_KEYS", "PORT", "POOLING"):
        monkeypatch.setenv(f"L2V_{name}", "")
    assert Settings() == Settings.model_construct()


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2V_API_KEYS", "sesame")
    assert "sesame" not in f"{Settings()!r}{Settings().model_dump_json()}"


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_is_documented() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description
        assert any(f"`L2V_{name.upper()}`" in row and f"`--{name.replace('_', '-')}`" in row for row in rows)


def test_traces_require_the_extra_otel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the OpenTelemetry API is installed, as in the image."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("l2v.app.settings.find_spec", missing)
    with pytest.raises(ValidationError, match="requires the extra otel"):
        Settings(otlp_endpoint="http://localhost:4318")


def test_the_variable_that_kubernetes_sets_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a Service named l2v, Kubernetes sets L2V_PORT in every pod of the namespace."""
    monkeypatch.setenv("L2V_PORT", "tcp://10.96.0.7:8080")
    assert Settings().port == 8080


def test_unknown_variables_are_reported() -> None:
    links = ("L2V_SERVICE_HOST", "L2V_PORT_8080_TCP_ADDR", "L2V_GPU_PORT")
    assert unknown(["PATH", "L2V_PORT", "L2V_MAX_INPUT", *links, "L2V_API_KEY"]) == ["L2V_API_KEY", "L2V_MAX_INPUT"]


def test_the_key_of_a_client_does_not_leave_the_service_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2V_API_KEY", "sesame")
    with pytest.raises(ValidationError, match="set L2V_API_KEYS to the service's keys"):
        Settings()
    assert Settings(api_keys="sesame").read_keys() == ("sesame",)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "cors_origins",
            ["*", "https://a.example,http://b.example:8080", "app://obsidian.md", "null"],
            ["a.example", "https://a.example/"],
        ),
        (
            "otlp_endpoint",
            ["http://localhost:4318", "https://c.example/otlp/"],
            ["localhost:4318", "grpc://localhost:4317", "http://"],
        ),
    ],
)
def test_addresses_are_validated(name: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        Settings(**{name: value})
    for value in bad:
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: value})


@pytest.mark.parametrize(("name", "reason"), [("", "at least 1 character"), ("x" * 101, "at most 100 characters")])
def test_the_name_of_a_prompt_is_validated(tmp_path: Path, name: str, reason: str) -> None:
    (file := tmp_path / "prompts.json").write_text(json.dumps({name: "Find:"}))
    with pytest.raises(ValidationError, match=rf"prompts\.json is not a JSON object .*{reason}"):
        Settings(prompts=file)


def test_default_instructions_are_validated() -> None:
    with pytest.raises(ValidationError, match="the prompt query must not contain a NUL"):
        Settings(query_instruction="a\0b")


def test_a_prompt_that_leaves_no_room_fails_the_start(encoder: Encoder) -> None:
    service = Service(Settings(document_instruction="word " * 600), Metrics())
    with pytest.raises(ModelError, match="the prompt document: instruction leaves no room"):
        start(service, encoder)
