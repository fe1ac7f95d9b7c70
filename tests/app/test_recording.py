"""The API's schema, responses and metrics match the recording."""

import json
from pathlib import Path
from typing import Any

import pytest

from l2v.models import Encoder
from tests.app.recording import KEY, record
from tests.serving import LocalServer

RECORDED = json.loads((Path(__file__).parent / "recording.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def recorded(encoder: Encoder) -> dict[str, Any]:
    with LocalServer(encoder) as server, LocalServer(encoder, api_keys=KEY) as keyed:
        return record(server.url, keyed.url)


@pytest.mark.parametrize("part", RECORDED)
def test_the_api_matches_the_recording(part: str, recorded: dict[str, Any]) -> None:
    """After an intended change, make a new recording: see `tests/app/recording.py`."""
    before, after = RECORDED[part], recorded[part]
    if isinstance(before, dict):
        assert {key: after.get(key) for key in before | after if after.get(key) != before.get(key)} == {}
    assert after == before
