"""HTTP over raw sockets against `l2v serve`: ambiguous and endless requests are rejected."""

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
    """Sends the parts and returns the responses that arrive until the connection is closed or silent."""
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
    return [b"HTTP/1.1 " + response for response in received.split(b"HTTP/1.1 ")[1:]]


def status(response: bytes) -> int:
    return int(response.split(b" ")[1])


def error(response: bytes) -> dict[str, str]:
    content: dict[str, str] = json.loads(response.partition(b"\r\n\r\n")[2])["error"]
    return content


@pytest.fixture(scope="module")
def wired() -> Iterator[ServerProcess]:
    """A separate server, because these requests fill its log."""
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
    "a chunk's size that is not a number": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + BODY,
    "a chunk's size beyond 64 bits": POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + BODY,
    "chunks ended by line feeds": POST + b"Transfer-Encoding: chunked\r\n\r\n20\n" + BODY + b"\n0\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET /info HTTP/3.7\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a space in the path": b"GET /in fo HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_an_ambiguous_request_is_rejected(name: str, wired: ServerProcess) -> None:
    """The server sends one error and closes the connection; it parses no second request."""
    (response,) = exchange(wired, SMUGGLED[name])
    assert status(response) == 400
    assert error(response) == {"type": "malformed", "message": "the request is not valid HTTP/1.1", "param": "request"}
    assert b"connection: close" in response.lower()


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_an_upgrade_to_another_protocol_is_ignored(protocol: bytes, wired: ServerProcess) -> None:
    """Java's client offers one with its first request. The body must not be parsed as a second request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: " + protocol + b"\r\n"
    head = POST + offer + length() + b"\r\n"
    hidden = POST + offer + length(HIDDEN) + b"\r\n" + HIDDEN
    closing = POST + b"Connection: close\r\n" + length() + b"\r\n" + BODY
    for parts in ([head + BODY], [head, BODY], [head[:50], head[50:], BODY[:9], BODY[9:]], [head + BODY[:9], BODY[9:]]):
        responses = exchange(wired, *parts, closing, seconds=30)
        assert [status(response) for response in responses] == [200, 200]
    assert [status(response) for response in exchange(wired, hidden + closing, seconds=30)] == [400, 200]
    chunks = POST + offer + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:9], BODY[9:])
    assert [status(response) for response in exchange(wired, chunks + closing, seconds=30)] == [200, 200]
    info = b"GET /info HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n"
    assert [status(response) for response in exchange(wired, info * 1500 + closing, seconds=30)] == [200] * 1501
    last = POST + b"Connection: close, Upgrade\r\nUpgrade: " + protocol + b"\r\n" + length() + b"\r\n" + BODY
    assert [status(response) for response in exchange(wired, last, seconds=30)] == [200]


def test_bytes_after_the_last_request_are_ignored(wired: ServerProcess) -> None:
    closing = POST + b"Connection: close\r\n" + length() + b"\r\n" + BODY
    assert [status(response) for response in exchange(wired, closing + HIDDEN, seconds=30)] == [200]


def test_pipelined_requests_are_answered_in_order(wired: ServerProcess) -> None:
    """Strict parsing does not break valid requests."""
    whole = POST + length() + b"\r\n" + BODY
    last = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:9], BODY[9:])
    responses = exchange(wired, whole + HIDDEN + last, seconds=30)
    assert [status(response) for response in responses] == [200, 200, 200]
    assert [b"embeddings" in response for response in responses] == [True, False, True]


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
def test_a_compressed_body_is_rejected_and_never_decompressed(headers: bytes, param: str, wired: ServerProcess) -> None:
    bomb = zlib.compress(b" " * 50_000_000) if b"deflate" in headers else gzip.compress(b" " * 50_000_000)
    framing = b"\r\n" + chunked(bomb) if b"Transfer" in headers else length(bomb) + b"\r\n" + bomb
    response = exchange(wired, POST + headers + framing)[0]
    assert (status(response), error(response)["param"]) == (415, param)


def test_the_limit_of_headers_is_exact(wired: ServerProcess) -> None:
    """It counts the path, and each header with an overhead."""
    fixed = len(b"/info") + len(b"host") + len(b"x") + len(b"x") + 2 * _HEADER_OVERHEAD
    for size, expected in ((LIMIT - fixed, 200), (LIMIT - fixed + 1, 431)):
        (response,) = exchange(wired, b"GET /info HTTP/1.1\r\nHost: x\r\nX: " + b"a" * size + b"\r\n\r\n")
        assert status(response) == expected


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/info", b"GET /info?" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("/info", b"GET /info HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n"),
        ("/v1/models", b"GET /v1/models HTTP/1.1\r\n" + b"".join(b"x-%d: y\r\n" % i for i in range(2000)) + b"\r\n"),
    ],
)
def test_the_error_of_too_many_or_too_large_headers_names_the_limit(
    path: str, request_: bytes, wired: ServerProcess
) -> None:
    (response,) = exchange(wired, request_)
    assert status(response) == 431
    assert error(response)["message"] == f"the headers are larger than {LIMIT} bytes (max_header_bytes)"
    assert error(response)["type"] == ("invalid_request_error" if path.startswith("/v1") else "headers_too_large")


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "start",
    [
        *(b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nX"),
        *(CHUNKED + b"1;", CHUNKED + b"0\r\nX: ", CHUNKED + b"0\r\nX"),
    ],
)
def test_an_endless_header_or_trailer_ends_the_connection(start: bytes, wired: ServerProcess) -> None:
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


def test_headers_may_arrive_byte_by_byte(wired: ServerProcess) -> None:
    """The parser counts bytes, not the number of reads."""
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
    """Sends the raw path, which clients would normalize."""
    (response,) = exchange(wired, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status(response) == 404
    assert b"root:" not in response
    assert b"import" not in response
