"""Settings: one definition for variable, flag and docs."""

import pytest
from pydantic import ValidationError

from app.settings import Settings, table


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
