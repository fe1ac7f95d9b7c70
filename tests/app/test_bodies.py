"""Bodies are counted as they arrive, cut anywhere, and parsed as Python's own parser does."""

import asyncio
import json
import random
from typing import Any

import pytest

from l2v.app.engine.errors import TooLargeError
from l2v.app.http.bodies import Structure, parse
from l2v.app.http.errors import MalformedError
from tests.fuzz.bodies import PIECES, text


def count(value: Any) -> tuple[int, int, int, int]:
    """(keys, strings, arrays and objects, values) by the punctuation of a value, as `Structure` counts them."""
    if not isinstance(value, list | dict):
        return 0, int(isinstance(value, str)), 0, 0
    items = list(value.values()) if isinstance(value, dict) else value
    parts = [count(item) for item in items]
    keys, strings, opened, values = (sum(part[index] for part in parts) for index in range(4))
    own = len(value) * isinstance(value, dict)
    return keys + own, strings + own, opened + 1, values + 1 + max(0, len(items) - 1)


def value(dice: random.Random, depth: int = 0) -> Any:
    roll = dice.random()
    if depth > 3 or roll < 0.5:
        return dice.choice(
            (1, -2.5e3, True, None, text(dice), dice.choice(PIECES), "\\", '"', '\\\\"', ",:[{", '[",",')
        )
    items = [value(dice, depth + 1) for _ in range(dice.randrange(6))]
    return items if roll < 0.75 else {text(dice): item for item in items}


def test_structure_is_counted_exactly_wherever_a_body_is_cut() -> None:
    dice = random.Random(1)
    for _ in range(1000):
        made = value(dice)
        body = json.dumps(made, indent=dice.choice((None, 1))).encode()
        structure = Structure(10**6)
        cuts = sorted(dice.choices(range(len(body) + 1), k=dice.randrange(9)))
        for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True):
            structure.feed(body[start:stop])
        assert tuple(structure._counts) == count(made)


def test_limits_are_exact() -> None:
    keys = ",".join(f'"{number}":0' for number in range(1024 + 2 * 5)).encode()
    Structure(5).feed(b"{" + keys + b"}")
    with pytest.raises(TooLargeError, match="more than 1034 keys"):
        Structure(5).feed(b"{" + keys + b',"":0}')
    Structure(5).feed(b'"",' * 2068)
    with pytest.raises(TooLargeError, match="more than 2068 strings"):
        Structure(5).feed(b'"",' * 2069)
    Structure(5).feed(b"[]" * 1029)
    with pytest.raises(TooLargeError, match="more than 1029 arrays"):
        Structure(5).feed(b"[]" * 1030)
    Structure(5).feed(b"[" * 1000 + b"]" * 1000)
    with pytest.raises(MalformedError, match="nested too deeply"):
        Structure(5).feed(b"[" * 1001 + b"]" * 1001)


def test_bodies_are_parsed_as_python_parses_them() -> None:
    dice = random.Random(2)
    bodies = [json.dumps(value(dice)).encode() for _ in range(500)]
    bodies += [body[:-1] for body in bodies[:200]] + [body.replace(b"[", b"[,", 1) for body in bodies[:200]]
    bodies += [
        b"[" * 500 + b"]" * 500,
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"1" * 4000,
        b'"\\ud800"',
        b'{"a":1,"a":2}',
        b" 1 ",
        b"",
        b"-",
        b"01",
    ]
    for body in bodies:
        try:
            expected = json.loads(body)
        except ValueError:
            with pytest.raises(MalformedError):
                asyncio.run(parse(body))
        else:
            assert repr(asyncio.run(parse(body))) == repr(expected)


def test_bodies_of_escapes_are_parsed_as_others_are() -> None:
    body = json.dumps({"inputs": ["中文" * 100_000, "\n" * 100_000, 1.5, 10**30]}).encode()
    assert asyncio.run(parse(body)) == json.loads(body)
    with pytest.raises(MalformedError, match=r"not valid JSON: .* at line 1"):
        asyncio.run(parse(body + b"]"))


def test_long_numbers_end_the_parsing_of_long_bodies() -> None:
    body = b"[" + b",".join([b"9" * 4000] * 1000) + b"]"
    with pytest.raises(MalformedError, match="a number has too many digits"):
        asyncio.run(parse(body))
    assert asyncio.run(parse(b"[" + b",".join([b"9" * 900] * 1000) + b"]")) == [int("9" * 900)] * 1000
    assert asyncio.run(parse(b'["' + b"9" * 1_000_000 + b'"]')) == ["9" * 1_000_000]
