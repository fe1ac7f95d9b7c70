"""What one request costs the server: CPU time, memory, and how long it keeps others waiting.

Each case is a large body, legal or not, of one route: many items, long texts, escapes, token ids, unknown fields, deep
nesting, large answers. A server keeps the memory that requests took. So memory is counted from the server's first case
on, and the cases come in the order of what they may take.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import httpx
import psutil

from tests.serving import ServerProcess

MB = 1 << 20
# Route → a body, with room for the value of its texts or ids.
_ROUTES = {
    "/embed": b'{"inputs":%b}',
    "/similarity": b'{"top_k":9,"queries":%b}',
    "/v1/embeddings": b'{"encoding_format":"base64","input":%b}',
    "/tei": b'{"inputs":%b}',
    "/tei/embed": b'{"inputs":%b}',
    "/tei/embed_all": b'{"inputs":%b}',
    "/tei/similarity": b'{"inputs":{"source_sentence":"a","sentences":%b}}',
    "/tei/tokenize": b'{"inputs":%b}',
    "/tei/decode": b'{"ids":%b}',
    "/tei/v1/embeddings": b'{"input":%b}',
}


def _many(item: bytes, end: bytes = b"") -> Callable[[int], bytes]:
    """An array of many items, whose last one is `end`."""
    return lambda size: b"[" + (item + b",") * (size // (len(item) + 1)) + (end or item) + b"]"


def _texts(characters: bytes) -> Callable[[int], bytes]:
    """An array of texts as long as they may be."""
    return _many(b'"' + characters * (100_000 // len(characters.decode("unicode-escape"))) + b'"')


def _fields(field: bytes) -> Callable[[int], bytes]:
    return lambda size: b"[]," + b",".join(field % number for number in range(size // (len(field) + 6)))


# Value → what makes it of about a size in bytes. It goes where texts or ids belong.
SHAPES: dict[str, Callable[[int], bytes]] = {
    "plain texts": _texts(b"a "),
    "texts of escapes": _texts(rb"\u0041"),
    "texts of escaped CJK": _texts(rb"\u4e2d"),
    "texts of short escapes": _texts(rb"\n"),
    "a text of everything": lambda size: b'"' + b"a" * size + b'"',
    "lone surrogates": _many(rb'"\ud800"'),
    "tiny texts": _many(b'"a"'),
    "tiny texts, the last one a number": _many(b'"a"', b"1"),
    "pairs": _many(b'["i","t"]'),
    "objects": _many(b'{"text":"t","instruction":"i"}'),
    "empty arrays": _many(b"[]"),
    "empty objects": _many(b"{}"),
    "one row of ids": _many(b"1"),
    "rows of ids": _many(b"[" + b"12345," * 511 + b"12345]"),
    "rows of ids, the last one negative": _many(b"[" + b"1," * 511 + b"1]", b"[-1]"),
    "rows of ids, the last one unknown": _many(b"[" + b"1," * 511 + b"1]", b"[999999999]"),
    "numbers with fractions": _many(b"1.5"),
    "a number of digits": lambda size: b"1" * size,
    "deep nesting": lambda size: b"[" * size,
    "white space": lambda size: b" " * size + b'"a"',
    "unknown fields": _fields(b'"k%d":1'),
    "unknown fields of an object": lambda size: b"[{" + _fields(b'"k%d":1')(size)[3:] + b"}]",
    "fields that are ignored": lambda size: b'"a","metadata":' + _many(b'"a"')(size),
    "the same field again": lambda size: b"[]" + b',"k":1' * (size // 6),
    "a long name": lambda size: b'"a","' + b"k" * size + b'":1',
    "texts and a fault at the end": lambda size: _many(b'"a"')(size // 2) + b"]",
    "bytes that are not UTF-8": lambda size: b'"' + b"a" * size + b'\xff"',
}
# Small bodies with large answers, the largest last.
_N = b"[" + b'"a",' * 2047 + b'"a"]'
ANSWERS = [
    ("/embed", "base64", b'{"encoding_format":"base64","inputs":%b}' % _N),
    ("/embed", "floats", b'{"inputs":%b}' % _N),
    ("/tei/embed_all", "states", b'{"inputs":[%b"a"]}' % (b'"a a a a",' * 300)),
    ("/tei/tokenize", "tokens", b'{"inputs":[%b"a"]}' % ((b'"' + b"a " * 40_000 + b'",') * 10)),
    ("/similarity", "all scores", b'{"queries":%b}' % _N),
    ("/similarity", "all best matches", b'{"queries":%b,"top_k":2048}' % _N),
]
# Fills a batch, so that the model has its memory.
_WARM_UP = b'{"inputs":[%b"a"]}' % ((b'"' + b"word " * 100 + b'",') * 100)


@dataclass(frozen=True)
class Cost:
    """What one request cost.

    Attributes:
        route: its path.
        shape: what its body was like.
        status: of the response.
        body: bytes of the body.
        answer: bytes of the response's body.
        cpu: CPU seconds of the server's process.
        memory: bytes of resident memory beyond those of the server before its first case.
        stall: the longest wait, in seconds, of requests for `/health` meanwhile.
    """

    route: str
    shape: str
    status: int
    body: int
    answer: int
    cpu: float
    memory: int
    stall: float

    @property
    def cpu_share(self) -> float:
        """CPU seconds of a refusal beyond 0.05 s, over what its size allows: 0.05 s a megabyte."""
        return (self.cpu - 0.05) / (0.05 * max(1, self.body / MB)) if self.status >= 400 else 0.0

    @property
    def memory_share(self) -> float:
        """Memory, over what is allowed: eight times the body, twice the answer and 64 MB."""
        return self.memory / (8 * self.body + 2 * self.answer + 64 * MB)


class Watch:
    """Asks a server for `/health` without pause, and looks at its memory, in a thread."""

    def __init__(self, server: ServerProcess, pid: int) -> None:
        self._url, self._process = f"{server.url}/health", psutil.Process(pid)
        self.stall, self.peak = 0.0, 0
        self._begun, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with httpx.Client(timeout=60) as client:
            client.get(self._url)
            self._begun.set()
            done = False
            while not done:  # at least once after the request
                done = self._done.is_set()
                started = time.monotonic()
                client.get(self._url)
                self.stall = max(self.stall, time.monotonic() - started)
                self.peak = max(self.peak, self._process.memory_info().rss)
                time.sleep(0.003)

    def __enter__(self) -> "Watch":
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def cases(shape: str, size: int) -> Iterator[tuple[str, bytes]]:
    """(route, body) of a shape."""
    value = SHAPES[shape](size)
    for route, body in _ROUTES.items():
        yield route, body % value


def send(server: ServerProcess, memory: int, route: str, shape: str, body: bytes) -> Cost:
    """Sends one request and measures it, given the server's memory before its first case."""
    process = psutil.Process(server.process.pid)
    spent = sum(process.cpu_times()[:2])
    with Watch(server, process.pid) as watch:
        status, answer = _exchange(server.port, route, body)
    cpu = sum(process.cpu_times()[:2]) - spent
    return Cost(route, shape, status, len(body), answer, cpu, max(0, watch.peak - memory), watch.stall)


def _exchange(port: int, route: str, body: bytes) -> tuple[int, int]:
    """Sends a request on a plain socket, which takes little of this machine. Returns (status, bytes of the answer)."""
    head = f"POST {route} HTTP/1.1\r\nHost: l2v\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        threading.Thread(
            target=_send, args=(connection, f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body)
        ).start()
        received = bytearray()
        total = 0
        while part := connection.recv(MB):
            total += len(part)
            received += part if len(received) < MB else b""
    end = received.index(b"\r\n\r\n") + 4
    return int(received.split(b" ", 2)[1]), total - end


def _send(connection: socket.socket, *parts: bytes) -> None:
    try:
        for part in parts:
            connection.sendall(part)
    except OSError:
        pass  # a refusal may close the connection


def measure(sizes: tuple[int, ...], shapes: tuple[str, ...]) -> list[Cost]:
    """The costs of small bodies with large answers, and of bodies of these sizes, shapes and all routes."""
    bodies = ((route, shape, body) for size in sorted(sizes) for shape in shapes for route, body in cases(shape, size))
    return [*_measure(ANSWERS), *_measure(bodies)]


def _measure(bodies: Iterable[tuple[str, str, bytes]]) -> Iterator[Cost]:
    with ServerProcess("--log-level", "warning") as server:
        server.wait_ready()
        for route, body in [*((route, body % b'"a"') for route, body in _ROUTES.items()), ("/embed", _WARM_UP)]:
            _exchange(server.port, route, body)
        memory = psutil.Process(server.process.pid).memory_info().rss
        for case in bodies:
            yield send(server, memory, *case)


def worst(costs: list[Cost]) -> list[Cost]:
    """The costs, those first that come closest to what is allowed, or exceed it most."""
    return sorted(costs, key=lambda cost: -max(cost.cpu_share, cost.memory_share, cost.stall / 0.2))


def table(costs: list[Cost]) -> str:
    rows = [
        "| route | body | MB | status | CPU s | memory MB | answer MB | longest wait ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| `{cost.route}` | {cost.shape} | {cost.body / MB:.1f} | {cost.status} | {cost.cpu:.2f} "
        f"| {cost.memory / MB:.0f} | {cost.answer / MB:.1f} | {1000 * cost.stall:.0f} |"
        for cost in costs
    ]
    return "\n".join(rows)
