"""Settings: one definition for variable, flag and docs."""

import pytest
from pydantic import ValidationError

from app.service import Service
from app.settings import Settings, table
from app.telemetry import Metrics
from models import Encoder
from models.errors import ModelError


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
    rows = table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    for name, field in Settings.model_fields.items():
        assert field.description
        assert any(f"`L2V_{name.upper()}`" in row and f"`--{name.replace('_', '-')}`" in row for row in rows)


def test_traces_without_what_they_need_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where of OpenTelemetry the API alone is there, as in the image."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("app.settings.find_spec", missing)
    with pytest.raises(ValidationError, match="needs the extra otel"):
        Settings(otlp_endpoint="http://localhost:4318")


def test_prompts_of_the_two_sides_are_instructions() -> None:
    with pytest.raises(ValidationError, match="query_instruction must not contain a NUL"):
        Settings(query_instruction="a\0b")


def test_a_prompt_that_leaves_no_room_ends_the_start(encoder: Encoder) -> None:
    service = Service(Settings(document_instruction="word " * 600), Metrics())
    with pytest.raises(ModelError, match="the prompt document: instruction leaves no room"):
        service.start(encoder)
