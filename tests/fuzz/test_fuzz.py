"""A short run of `python -m tests.fuzz`: requests get responses that the contract allows, and cost what they may."""

from collections.abc import Iterator
from itertools import islice

import pytest

from tests.fuzz import costs, report, shapes
from tests.fuzz.campaign import fuzz, schemathesis
from tests.fuzz.serving import server
from tests.serving import ServerProcess

# Requests that cost more than they may, as docs/RELIABILITY.md says.
_MISSES = ("the shortest of 2,048 is too long", "ids of too many long tokens", "ids of long tokens")


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


def test_requests_cost_no_more_than_they_may(running: ServerProcess) -> None:
    """Each shape on one of the routes, and the small bodies whose answers or rejections could be costly."""
    large = [
        next(islice(shapes.requests(2 * report.MB, shape), number % len(shapes.ROUTES), None))
        for number, shape in enumerate(shapes.SHAPES)
    ]
    small = [request for request in shapes.SPECIAL if request.shape not in _MISSES]
    for cost in costs.measure(running, [*small, *large]):
        cpu, memory, _ = cost.shares
        assert cpu < 2, cost  # on a busy machine, the same work takes longer
        assert memory < 1, cost
