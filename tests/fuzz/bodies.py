"""Mutates valid requests into malformed ones: wrong values, unusual Unicode, broken JSON."""

import json
import random
import unicodedata
from dataclasses import dataclass, field
from typing import Any

JSON = {"Content-Type": "application/json"}
# Part of many texts; must never appear in a log or a metric.
MARK = "swordfish"

SEEDS: dict[str, list[Any]] = {
    "/embed": [
        {"inputs": "a text", "instruction": "Find:", "normalize": False, "dimensions": 4, "truncate": True},
        {"inputs": ["one", ["Find:", "two"], {"text": "three", "instruction": "i"}], "encoding_format": "base64"},
        {"inputs": ["one"], "prompt_name": "sts"},
    ],
    "/similarity": [
        {"queries": "a", "documents": ["b", "c"], "query_instruction": "Find:", "top_k": 1, "metric": "dot"},
        {"queries": ["a", {"text": "b"}], "document_prompt_name": None},
    ],
    "/tokenize": [{"inputs": ["a", ["Find:", "b"]], "truncate": False}],
    "/v1/embeddings": [
        {"input": "a", "model": "m", "user": "u", "dimensions": 8, "encoding_format": "float", "truncate": True},
        {"input": [[1, 2], [3]], "prompt_name": "sts"},
        {"input": "a", "input_type": "query", "truncate": "START", "truncate_prompt_tokens": 9, "normalize": False},
        {"input": [5, 6, 7]},
    ],
    "/tei": [{"inputs": ["a", "b"]}],
    "/tei/embed": [{"inputs": ["a", [1, 2]], "normalize": True, "truncate": False, "truncation_direction": "Left"}],
    "/tei/embed_all": [{"inputs": "a", "prompt_name": "sts"}],
    "/tei/similarity": [{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": True}}],
    "/tei/tokenize": [{"inputs": ["a", "b"], "add_special_tokens": False}],
    "/tei/decode": [{"ids": [[1, 2], [3]], "skip_special_tokens": False}, {"ids": [4]}],
    "/tei/v1/embeddings": [{"input": ["a", "b"], "dimensions": 3}],
}

# Strings that break tokenizers, normalisers and JSON libraries. They are joined, repeated and mixed.
# fmt: off
PIECES = [
    "", " ", "\t\n", "\u00a0", "\u2003", "\u200b", "\u2028", "\ufeff", "\u0085", "\x1f", "\x7f", "\0", "a\0b",
    "\ud800", "\udfff", "\ud83d", "\ufffe", "\uffff", "\U0010ffff", "\ue000", "\ufdfa", "e\u0301", "\u0301",
    "ﬁ", "İ", "ẞ", "\u202e abc", "\u200d", "👩‍👩‍👧‍👦", "🏳️‍🌈", "नमस्ते", "日本語", "한국어", "עברית", "العربية",
    "Ω≈ç√", "𝔘𝔫𝔦", "\u1100\u1161", "<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "[INST]",
    "!@#$%^&*()", "_", "▁", "Ġ", "<0x00>", "\\u0000", "\\", '"', "${jndi:x}", "{{7*7}}", "%s%n",
    "../../etc/passwd", "'; DROP", "<script>", "NaN", "null", "a" * 300, "word " * 90,
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 0.0, -0.0, 1.5, 1e-320, 1e308, "",
    "a", "0", [], [[]], {}, [None], [0], [""], [[[["a"]]]], {"": ""}, {"text": "a", "x": 1}, ["a", 1],
    ["i", "t", "x"], [1, "a"],
]
# fmt: on
# Invalid JSON, and values at its limits.
# fmt: off
LITERALS = [
    b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"0" * 50, b"1" * 5000, b"undefined", b"'a'", b"01",
    b"+1", b"0x1", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b'"\\x"', b'"\\ud800"', b'"\\u0000"', b'"\n"', b"//",
    b"/**/",
]
TYPES = [
    "application/json; charset=utf-16", "application/json;charset=latin-1", "Application/JSON",
    "application/json;", "text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded",
    "application/jsonl", "", "*/*",
]
HEADERS = [
    {"Content-Encoding": "gzip"}, {"Content-Encoding": "br"}, {"Accept": "text/html"},
    {"Accept-Encoding": "zstd"}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 900},
    {"Authorization": "Bearer \xff"}, {"Origin": "null"}, {"If-None-Match": "*"}, {"Range": "bytes=0-1"},
    {"Cookie": "a=b"}, {"Traceparent": "00-x-y-z"}, {"X-Forwarded-For": "::1"},
]
PATHS = [
    "/", "/embed/", "/EMBED", "//embed", "/embed/../info", "/%2e%2e/etc/passwd", "/docs/../main.py",
    "/docs/%2e%2e%2fmain.py", "/docs/%00", "/docs/..%5c..%5cmain.py", "/playground/%2e%2e/settings.py",
    "/playground//etc/passwd", "/v1/models/../../etc/passwd", "/v1/models/%ff%fe", "/v1/models/" + "x" * 3000,
    "/tei/../metrics", "/nothing", "/%F0%9F%92%A9", "/;a=b", "/info?x=" + "y" * 5000,
]
# fmt: on
METHODS = ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST", "PROPFIND"]


@dataclass
class Attempt:
    """One request to send."""

    path: str
    method: str = "POST"
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))

    def __str__(self) -> str:
        return f"{self.method} {self.path[:200]} {self.headers} {self.content[:600]!r}"


def attempt(dice: random.Random) -> Attempt:
    """Creates a request, determined by the state of `dice`."""
    path = dice.choice(list(SEEDS))
    made = Attempt(path)
    body = json.loads(json.dumps(dice.choice(SEEDS[path])))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        _mutate(body, dice)
    made.content = _dump(body, dice)
    roll = dice.random()
    if roll < 0.15:
        made.content = _spoil(made.content, dice)
    elif roll < 0.22:
        made.headers["Content-Type"] = dice.choice(TYPES)
    elif roll < 0.29:
        made.headers |= dice.choice(HEADERS)
    elif roll < 0.37:
        made.path, made.method = dice.choice([*PATHS, *SEEDS]), dice.choice(METHODS)
        made.content = dice.choice((b"", made.content))
    return made


def text(dice: random.Random) -> str:
    """Creates a text: one piece 1,000 times, a few pieces, or characters of one range of Unicode."""
    roll = dice.random()
    if roll < 0.02:
        return dice.choice(PIECES) * 1000
    if roll < 0.5:
        return "".join(dice.choices(PIECES, k=dice.randint(1, 4)))
    start = dice.choice(
        (0, 0x80, 0x300, 0x590, 0x900, 0x2000, 0x3000, 0xAC00, 0xD700, 0xE000, 0x1F000, 0x20000, 0xE0000)
    )
    made = "".join(chr(start + dice.randrange(0x400)) for _ in range(dice.randint(1, 40)))
    return unicodedata.normalize(dice.choice(("NFC", "NFD", "NFKC", "NFKD")), made) if dice.random() < 0.3 else made


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a body."""
    found = []
    for key, value in list(
        node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    ):
        found += [(node, key), *_places(value)]
    return found


def _mutate(body: Any, dice: random.Random) -> None:
    places = _places(body)
    if not places:
        return
    container, key = dice.choice(places)
    texts = [(where, name) for where, name in places if isinstance(where[name], str)]
    roll = dice.random()
    if roll < 0.5 and texts:
        container, key = dice.choice(texts)
        container[key] = MARK + text(dice) if dice.random() < 0.5 else text(dice)
    elif roll < 0.75:
        container[key] = json.loads(json.dumps(dice.choice(VALUES)))
    elif roll < 0.85:
        del container[key]
    elif roll < 0.95 and isinstance(container, dict):
        container[text(dice)[:50]] = dice.choice(VALUES)
    elif isinstance(container, list):
        container *= dice.choice((2, 20))


def _dump(body: Any, dice: random.Random) -> bytes:
    """Serialises as UTF-8, or as ASCII if there are lone surrogates, which exist only as escapes."""
    try:
        return json.dumps(body, ensure_ascii=dice.random() < 0.5).encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()


def _spoil(content: bytes, dice: random.Random) -> bytes:
    """Corrupts the bytes of a body."""
    place = dice.randrange(len(content) + 1)
    match dice.randrange(7):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes(dice.randrange(256) for _ in range(dice.randint(1, 4))) + content[place:]
        case 2:
            return content[:place] + content[place + 1 :]
        case 3:
            return content.replace(dice.choice((b'"a"', b"true", b"null", b"4", b"[")), dice.choice(LITERALS), 1)
        case 4:
            return content.decode().encode(dice.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))
        case 5:
            return b"[" * dice.choice((50, 5000, 100_000)) + content
        case _:
            return content.replace(b"{", b'{"inputs": "first", ', 1) + dice.choice((b"", b" ", b"{}", b"\0"))
