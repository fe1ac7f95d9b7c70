"""HTTP by raw sockets against the real command: what could be read in two ways, or never ends, is refused."""

import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator

import pytest

from l2v.app.http.connection import _HEADER_OVERHEAD
from tests.serving import ServerProcess

BODY = b'{"inputs": "a", "dimensions": 1}'
POST = b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HIDDEN = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n"
LIMIT = 32_768


def length(of: bytes = BODY) -> bytes:
    return b"Content-Length: %d\r\n" % len(of)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


def exchange(server: ServerProcess, *parts: bytes, seconds: float = 0.5) -> list[bytes]:
    """Sends the parts and gives the answers, split at their status lines, up to the end or to silence."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while chunk := connection.recv(65_536):
                received += chunk
                connection.settimeout(seconds)
        except (TimeoutError, ConnectionError):
            pass
    return [b"HTTP/1.1 " + answer for answer in received.split(b"HTTP/1.1 ")[1:]]


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def error(answer: bytes) -> dict[str, str]:
    content: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    return content


@pytest.fixture(scope="module")
def wired() -> Iterator[ServerProcess]:
    """A server of its own, whose log may fill with what it is sent."""
    with ServerProcess() as process:
        process.wait_ready()
        yield process


SMUGGLED = {
    "length and chunks": POST + length(chunked() + HIDDEN) + b"Transfer-Encoding: chunked\r\n\r\n" + chunked() + HIDDEN,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\n" + length(b"1") + b"\r\n" + chunked(BODY) + HIDDEN,
    "two lengths": POST + length(b"1") + length() + b"\r\n" + BODY,
    "one length twice": POST + length() + length() + b"\r\n" + BODY,
    "a list of lengths": POST + b"Content-Length: 32, 32\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +32\r\n\r\n" + BODY,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + BODY,
    "a hexadecimal length": POST + b"Content-Length: 0x20\r\n\r\n" + BODY,
    "a length beyond 64 bits": POST + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "chunks by another name": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + chunked(BODY),
    "chunks, not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + chunked(BODY),
    "chunks and a second coding": POST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n"
    + chunked(BODY),
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + chunked(BODY),
    "a folded header": POST + b"X: a\r\n b\r\n" + length() + b"\r\n" + BODY,
    "a bare line feed": POST.replace(b"\r\n", b"\n") + length().replace(b"\r\n", b"\n") + b"\n" + BODY,
    "a bare carriage return": POST + b"X: a\rContent-Length: 1\r\n" + length() + b"\r\n" + BODY,
    "NUL in a header": POST + b"X: a\0b\r\n" + length() + b"\r\n" + BODY,
    "a chunk's size that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY,
    "a chunk's size beyond 64 bits": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + BODY,
    "chunks ended by line feeds": POST + b"Transfer-Encoding: chunked\r\n\r\n20\n" + BODY + b"\n0\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET /info HTTP/3.7\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a space in the path": b"GET /in fo HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_what_two_parsers_could_read_in_two_ways_is_refused(name: str, wired: ServerProcess) -> None:
    """One answer, of the table, and the end: nothing that stands behind is read as a second request."""
    (answer,) = exchange(wired, SMUGGLED[name])
    assert status(answer) == 400
    assert error(answer) == {"type": "malformed", "message": "the request is not valid HTTP/1.1", "param": "request"}
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_an_offer_of_another_protocol_is_passed_over(protocol: bytes, wired: ServerProcess) -> None:
    """As Java's client makes with each first request; its body is a body, and no second request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: " + protocol + b"\r\n"
    head = POST + offer + length() + b"\r\n"
    hidden = POST + offer + length(HIDDEN) + b"\r\n" + HIDDEN
    closing = POST + b"Connection: close\r\n" + length() + b"\r\n" + BODY
    for parts in ([head + BODY], [head, BODY], [head[:50], head[50:], BODY[:9], BODY[9:]], [head + BODY[:9], BODY[9:]]):
        answers = exchange(wired, *parts, closing, seconds=30)
        assert [status(answer) for answer in answers] == [200, 200]
    assert [status(answer) for answer in exchange(wired, hidden + closing, seconds=30)] == [400, 200]
    chunks = POST + offer + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:9], BODY[9:])
    assert [status(answer) for answer in exchange(wired, chunks + closing, seconds=30)] == [200, 200]
    info = b"GET /info HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    assert [status(answer) for answer in exchange(wired, info * 1500 + closing, seconds=30)] == [200] * 1501
    last = POST + b"Connection: close, Upgrade\r\nUpgrade: " + protocol + b"\r\n" + length() + b"\r\n" + BODY
    assert [status(answer) for answer in exchange(wired, last, seconds=30)] == [200]


def test_what_stands_behind_the_last_request_is_nobodys(wired: ServerProcess) -> None:
    closing = POST + b"Connection: close\r\n" + length() + b"\r\n" + BODY
    assert [status(answer) for answer in exchange(wired, closing + HIDDEN, seconds=30)] == [200]


def test_requests_in_a_row_are_answered_in_their_order(wired: ServerProcess) -> None:
    """The strictness above does not cost what is allowed."""
    whole = POST + length() + b"\r\n" + BODY
    last = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:9], BODY[9:])
    answers = exchange(wired, whole + HIDDEN + last, seconds=30)
    assert [status(answer) for answer in answers] == [200, 200, 200]
    assert [b"embeddings" in answer for answer in answers] == [True, False, True]


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        (b"Content-Encoding: gzip\r\n", "content-encoding"),
        (b"Content-Encoding: deflate\r\n", "content-encoding"),
        (b"Content-Encoding: br\r\n", "content-encoding"),
        (b"Content-Encoding: zstd\r\n", "content-encoding"),
        (b"Content-Encoding: gzip, gzip\r\n", "content-encoding"),
        (b"Transfer-Encoding: gzip, chunked\r\n", "transfer-encoding"),
    ],
)
def test_a_compressed_body_is_refused_and_never_unpacked(headers: bytes, param: str, wired: ServerProcess) -> None:
    bomb = zlib.compress(b" " * 50_000_000) if b"deflate" in headers else gzip.compress(b" " * 50_000_000)
    framing = b"\r\n" + chunked(bomb) if b"Transfer" in headers else length(bomb) + b"\r\n" + bomb
    answer = exchange(wired, POST + headers + framing)[0]
    assert (status(answer), error(answer)["param"]) == (415, param)


def test_headers_are_bounded_to_the_byte(wired: ServerProcess) -> None:
    """The path, and each header with its overhead."""
    fixed = len(b"/info") + len(b"host") + len(b"x") + len(b"x") + 2 * _HEADER_OVERHEAD
    for size, expected in ((LIMIT - fixed, 200), (LIMIT - fixed + 1, 431)):
        (answer,) = exchange(wired, b"GET /info HTTP/1.1\r\nHost: x\r\nX: " + b"a" * size + b"\r\n\r\n")
        assert status(answer) == expected


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/info", b"GET /info?" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("/info", b"GET /info HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n"),
        ("/v1/models", b"GET /v1/models HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(2000)) + b"\r\n"),
    ],
)
def test_too_many_or_too_large_headers_are_refused_by_the_name_of_the_limit(
    path: str, request_: bytes, wired: ServerProcess
) -> None:
    (answer,) = exchange(wired, request_)
    assert status(answer) == 431
    assert error(answer)["message"] == f"the headers are larger than {LIMIT} bytes (max_header_bytes)"
    assert error(answer)["type"] == ("invalid_request_error" if path.startswith("/v1") else "headers_too_large")


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "start",
    [
        *(b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX"),
        *(CHUNKED + b"1;", CHUNKED + b"0\r\nX: ", CHUNKED + b"0\r\nX"),
    ],
)
def test_a_head_or_trailer_that_never_ends_is_cut_off(start: bytes, wired: ServerProcess) -> None:
    sent = 0
    with socket.create_connection(("127.0.0.1", wired.port), timeout=10) as connection:
        connection.sendall(start)
        try:
            while sent < 100_000_000:
                connection.sendall(b"a" * 10_000)
                sent += 10_000
        except ConnectionError:
            pass
    assert sent < 20_000_000


def test_headers_in_small_pieces_are_read(wired: ServerProcess) -> None:
    """Pieces of a head are counted, not mistaken for one without end."""
    with socket.create_connection(("127.0.0.1", wired.port), timeout=10) as connection:
        for byte in HIDDEN:
            connection.sendall(bytes([byte]))
            time.sleep(0.002)
        assert status(connection.recv(65_536)) == 200


@pytest.mark.parametrize(
    "path",
    [
        "/docs/../settings.py",
        "/docs/../../etc/passwd",
        "/docs/%2e%2e/settings.py",
        "/docs/..%2fsettings.py",
        "/docs/..%5csettings.py",
        "/docs//etc/passwd",
        "/docs/%2fetc%2fpasswd",
        "/docs/start.js%00.css",
        "/playground/../settings.py",
        "/playground/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/playground/vendor/../../settings.py",
        "/v1/models/../../../etc/passwd",
        "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_out_of_the_pages(path: str, wired: ServerProcess) -> None:
    """As it stands on the wire: clients tidy such paths before they send them."""
    (answer,) = exchange(wired, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) == 404
    assert b"root:" not in answer
    assert b"import" not in answer
