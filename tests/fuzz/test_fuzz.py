"""A short run of `python -m tests.fuzz`: every request gets a response that the contract allows."""

from collections.abc import Iterator

import pytest

from tests.fuzz.campaign import fuzz, schemathesis
from tests.fuzz.serving import server
from tests.serving import ServerProcess


@pytest.fixture(scope="module")
def running() -> Iterator[ServerProcess]:
    with server() as process:
        yield process


def test_malformed_requests_get_valid_responses(running: ServerProcess) -> None:
    figures = fuzz(running, 1000, seed=6)
    assert not figures.problems, "\n".join(figures.problems[:20])
    assert figures.statuses[200] > 100
    assert {400, 404, 405, 413, 415, 422} <= figures.statuses.keys()


def test_schemathesis_finds_no_problems(running: ServerProcess) -> None:
    figures = schemathesis(running, 5, seed=6)
    assert not figures.problems, "\n".join(figures.problems)
    assert figures.cases > 500
    assert not figures.unaccepted
