"""Settings: one definition for variable, flag and docs."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from docs.tables import settings_table
from l2v.app.commands.serve import unknown
from l2v.app.engine.service import Service
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
    """Compose files pass on variables that nobody set."""
    for name in ("MODEL", "ADAPTERS", "API_KEYS", "PORT", "POOLING"):
        monkeypatch.setenv(f"L2V_{name}", "")
    assert Settings() == Settings.model_construct()


def test_keys_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2V_API_KEYS", "sesame")
    assert "sesame" not in f"{Settings()!r}{Settings().model_dump_json()}"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_every_setting_is_explained() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description
        assert any(f"`L2V_{name.upper()}`" in row and f"`--{name.replace('_', '-')}`" in row for row in rows)


def test_traces_without_what_they_need_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where of OpenTelemetry the API alone is there, as in the image."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("l2v.app.settings.find_spec", missing)
    with pytest.raises(ValidationError, match="requires the extra otel"):
        Settings(otlp_endpoint="http://localhost:4318")


def test_the_port_is_not_what_kubernetes_calls_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Service called l2v it tells every pod beside it."""
    monkeypatch.setenv("L2V_PORT", "tcp://10.96.0.7:8080")
    assert Settings().port == 8080


def test_names_that_no_setting_has_are_told() -> None:
    links = ("L2V_SERVICE_HOST", "L2V_PORT_8080_TCP_ADDR", "L2V_GPU_PORT")
    assert unknown(["PATH", "L2V_PORT", "L2V_MAX_INPUT", *links, "L2V_API_KEY"]) == ["L2V_API_KEY", "L2V_MAX_INPUT"]


def test_the_key_of_a_client_does_not_leave_the_service_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2V_API_KEY", "sesame")
    with pytest.raises(ValidationError, match="Set L2V_API_KEYS to the service's keys"):
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
def test_addresses_are_whole(name: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        Settings(**{name: value})
    for value in bad:
        with pytest.raises(ValidationError, match=name):
            Settings(**{name: value})


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_prompt_has_a_name_that_can_be_asked_for(tmp_path: Path, name: str) -> None:
    (file := tmp_path / "prompts.json").write_text(json.dumps({name: "Find:"}))
    with pytest.raises(ValidationError, match="name of a prompt must have 1 to 100 characters"):
        Settings(prompts=file)


def test_prompts_of_the_two_sides_are_instructions() -> None:
    with pytest.raises(ValidationError, match="query_instruction must not contain a NUL"):
        Settings(query_instruction="a\0b")


def test_a_prompt_that_leaves_no_room_ends_the_start(encoder: Encoder) -> None:
    service = Service(Settings(document_instruction="word " * 600), Metrics())
    with pytest.raises(ModelError, match="the prompt document: instruction leaves no room"):
        service.start(encoder)
