"""Large bodies, legal or not, and small ones with large answers."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

Value = Callable[[int], bytes]

# Route → a body, with room for the value of its texts or ids.
ROUTES = {
    "/embed": b'{"inputs":%b}',
    "/similarity": b'{"top_k":9,"queries":%b}',
    "/tokenize": b'{"inputs":%b}',
    "/v1/embeddings": b'{"encoding_format":"base64","input":%b}',
    "/v2/embed": b'{"model":"m","input_type":"search_query","embedding_types":["int8","float"],"texts":%b}',
    "/tei": b'{"inputs":%b}',
    "/tei/embed": b'{"inputs":%b}',
    "/tei/embed_all": b'{"inputs":%b}',
    "/tei/similarity": b'{"inputs":{"source_sentence":"a","sentences":%b}}',
    "/tei/tokenize": b'{"inputs":%b}',
    "/tei/decode": b'{"ids":%b}',
    "/tei/v1/embeddings": b'{"input":%b}',
}


class Request(NamedTuple):
    """A request of the campaign; `shape` says what its body is like."""

    route: str
    shape: str
    body: bytes


def _many(item: bytes, end: bytes = b"") -> Value:
    """An array of many items, whose last one is `end`."""
    return lambda size: b"[" + (item + b",") * (size // (len(item) + 1)) + (end or item) + b"]"


def _texts(characters: bytes) -> Value:
    """An array of texts as long as they may be."""
    return _many(b'"' + characters * (100_000 // len(characters.decode("unicode-escape"))) + b'"')


def _fields(field: bytes) -> Value:
    return lambda size: b"[]," + b",".join(field % number for number in range(size // (len(field) + 6)))


# What takes the place of texts or ids → how to make it of about a size in bytes.
SHAPES: dict[str, Value] = {
    "texts of one-letter words": _texts(b"a "),
    "texts of one long word": _texts(b"a"),
    "texts of spaces": _many(b'"a' + b" " * 99_998 + b'b"'),
    "texts of CJK": _many(b'"' + "中文".encode() * 50_000 + b'"'),
    "texts of escapes": _texts(rb"\u0041"),
    "texts of escaped CJK": _texts(rb"\u4e2d"),
    "texts of short escapes": _texts(rb"\n"),
    "a text of everything": lambda size: b'"' + b"a" * size + b'"',
    "lone surrogates": _many(rb'"\ud800"'),
    "tiny texts": _many(b'"a"'),
    "tiny texts, the last one a number": _many(b'"a"', b"1"),
    "pairs": _many(b'["i","t"]'),
    "objects": _many(b'{"text":"t","instruction":"i"}'),
    "objects with long instructions": _many(b'{"text":"t","instruction":"' + b"i " * 50_000 + b'"}'),
    "empty arrays": _many(b"[]"),
    "empty objects": _many(b"{}"),
    "one row of ids": _many(b"1"),
    "rows of ids": _many(b"[" + b"12345," * 511 + b"12345]"),
    "rows of ids, the last one negative": _many(b"[" + b"1," * 511 + b"1]", b"[-1]"),
    "rows of ids, the last one unknown": _many(b"[" + b"1," * 511 + b"1]", b"[999999999]"),
    "numbers with fractions": _many(b"1.5"),
    "a number of many digits": lambda size: b"1" * size,
    "numbers of many digits": _many(b"9" * 4000),
    "arrays in arrays": lambda size: b"[" * size,
    "arrays in arrays, closed": lambda size: b"[" * 900 + b" " * size + b"]" * 900,
    "objects in objects": lambda size: b'{"a":' * (size // 5),
    "white space": lambda size: b" " * size + b'"a"',
    "unknown fields": _fields(b'"k%d":1'),
    "unknown fields of an object": lambda size: b"[{" + _fields(b'"k%d":1')(size)[3:] + b"}]",
    "an array in a field without effect": lambda size: b'"a","metadata":' + _many(b'"a"')(size),
    "a text in a field without effect": lambda size: b'"a","user":"' + b"a" * size + b'"',
    "many times the same field": lambda size: b"[]" + b',"k":1' * (size // 6),
    "a long name": lambda size: b'"a","' + b"k" * size + b'":1',
    "dimensions of many digits": lambda size: b'"a","dimensions":' + b"9" * size,
    "a fault at the end": lambda size: b'["' + b"a " * (size // 2) + b'"}',
    "bytes that are not UTF-8": lambda size: b'"' + b"a" * size + b'\xff"',
}


def requests(size: int, shape: str) -> Iterator[Request]:
    """The bodies of a shape, one per route."""
    value = SHAPES[shape](size)
    return (Request(route, shape, body % value) for route, body in ROUTES.items())


_WORDS = b"the cat sits on the mat while it rains and "


def _prose(words: int) -> bytes:
    return b'"' + b" ".join((_WORDS * (words // 8 + 1)).split()[:words]) + b'"'


def _list(item: bytes, count: int, *more: bytes) -> bytes:
    return b"[" + b",".join([item] * count + list(more)) + b"]"


_N = _list(b'"a"', 2048)
# In the order of what they may take, since a server keeps the memory that requests took.
SPECIAL = [
    Request("/v1/embeddings", "20 texts that are too long", b'{"input":%b}' % _list(b'"%b"' % (b"a " * 50_000), 20)),
    Request("/v1/embeddings", "one of 160 texts is too long", b'{"input":%b}' % _list(_prose(250), 159, _prose(450))),
    Request("/v1/embeddings", "one of 2,048 is too long", b'{"input":%b}' % _list(_prose(250), 2047, _prose(450))),
    Request(
        "/v1/embeddings",
        "the shortest of 2,048 is too long",
        b'{"input":%b}' % _list(_prose(250), 2047, b'"%b"' % (b"x " * 410)),
    ),
    Request("/tei/embed_all", "2,048 long texts", b'{"inputs":%b}' % _list(_prose(1000), 2048)),
    Request("/embed", "an instruction that is too long", b'{"inputs":%b,"instruction":%b}' % (_N, _prose(20_000))),
    Request("/tei/decode", "ids of long tokens", b'{"ids":%b}' % _list(_list(b"6500", 6000), 20)),
    Request("/tei/decode", "ids of too many long tokens", b'{"ids":%b}' % _list(_list(b"6500", 6000), 180)),
    Request("/v1/embeddings", "ids of long tokens", b'{"input":%b}' % _list(_list(b"6500", 6000), 20)),
    Request("/tei/embed_all", "token states", b'{"inputs":%b}' % _list(b'"a a a a"', 300)),
    Request("/embed", "2,048 vectors in base64", b'{"encoding_format":"base64","inputs":%b}' % _N),
    Request("/embed", "2,048 vectors", b'{"inputs":%b}' % _N),
    Request("/tei/tokenize", "tokens of words", b'{"inputs":%b}' % _list(b'"%b"' % (b"a " * 50_000), 10)),
    Request("/tei/tokenize", "tokens of CJK", b'{"inputs":%b}' % _list(b'"%b"' % ("中".encode() * 100_000), 3)),
    Request("/similarity", "2,048 rows of scores", b'{"queries":%b}' % _N),
    Request("/similarity", "top_k of 2,048 rows", b'{"queries":%b,"top_k":2048}' % _N),
]
