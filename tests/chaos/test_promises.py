"""The short form of each promise. Only `make chaos` checks targets that a busy machine can miss."""

import asyncio

import pytest

from tests.chaos import soak
from tests.chaos.__main__ import PROMISES
from tests.chaos.figures import PAGE, Figure

SHARE, SOAK_SECONDS = 0.03, 8.0


def check(figures: list[Figure]) -> None:
    print(*figures, sep="\n")
    missed = [str(figure) for figure in figures if not figure.met and not figure.timing]
    assert not missed
    assert any(figure.target for figure in figures)


@pytest.mark.parametrize("name", PROMISES)
def test_promise(name: str) -> None:
    check(asyncio.run(PROMISES[name](SHARE)))


@pytest.mark.parametrize("name", ["drain", "engine", "overload", "batches"])
def test_promise_of_several_processes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those promises to which the processes contribute."""
    monkeypatch.setenv("L2V_HTTP_WORKERS", "2")
    check(asyncio.run(PROMISES[name](SHARE)))


def test_soak() -> None:
    check(asyncio.run(soak.run(SOAK_SECONDS)))


def test_every_promise_has_markers_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in (*PROMISES, "soak"):
        assert text.count(f"<!-- chaos {name} -->\n") == text.count(f"<!-- /chaos {name} -->") == 1
