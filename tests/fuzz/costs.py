"""Measures what one request costs the server: CPU time, memory, and how long it keeps others waiting."""

import http.client
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

from bench.worker import peak_resident_bytes
from tests.fuzz.report import MB, Cost
from tests.fuzz.shapes import ROUTES, Request
from tests.serving import ServerProcess

# Fills batches with long and with short texts, so that the model has its memory.
_WARM_UP = [
    Request("/embed", "", b'{"inputs":[%b"a"]}' % (text * count))
    for text, count in ((b'"' + b"word " * 100 + b'",', 100), (b'"a",', 2047))
]
# Seconds between requests for /health, so that they take little of the server's time.
_PAUSE = 0.01


class Watch:
    """Asks a server for `/health` again and again, in a thread."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.wait = self.busy = 0.0
        self._begun, self._done = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=120)
        _health(connection)
        self._begun.set()
        done = False
        while not done:  # at least once after the request
            done = self._done.is_set()
            started, spent = time.monotonic(), _cpu_seconds(self._server)
            _health(connection)
            self.wait = max(self.wait, time.monotonic() - started)
            self.busy = max(self.busy, _cpu_seconds(self._server) - spent)
            time.sleep(_PAUSE)
        connection.close()

    def __enter__(self) -> "Watch":
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def warm_up(server: ServerProcess) -> None:
    """Waits until the server is ready, and sends requests that make it load code and allocate memory for batches."""
    server.wait_ready()
    for request in [*(Request(route, "", body % b'"a"') for route, body in ROUTES.items()), *_WARM_UP]:
        _exchange(server, request)


def measure(server: ServerProcess, requests: Iterable[Request]) -> Iterator[Cost]:
    """Sends the requests one by one, to a server that is warmed up."""
    before = resident_bytes(server)
    for request in requests:
        peak_resident_bytes(str(server.process.pid))
        spent = _cpu_seconds(server)
        with Watch(server) as watch:
            status, answer = _exchange(server, request)
        cpu = _cpu_seconds(server) - spent
        memory = max(0, peak_resident_bytes(str(server.process.pid)) - before)
        yield Cost(request.route, request.shape, status, len(request.body), answer, cpu, memory, watch.wait, watch.busy)


def resident_bytes(server: ServerProcess) -> int:
    return int(psutil.Process(server.process.pid).memory_info().rss)


def _cpu_seconds(server: ServerProcess) -> float:
    """CPU time of all threads, in nanoseconds rather than the hundredths of psutil; as `clock_getcpuclockid` has it."""
    return time.clock_gettime((~server.process.pid << 3) | 2)


def _health(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/health")
    connection.getresponse().read()


def _exchange(server: ServerProcess, request: Request) -> tuple[int, int]:
    """Sends a request on a plain socket, which takes little of this machine. Returns (status, bytes of the answer)."""
    head = f"POST {request.route} HTTP/1.1\r\nHost: l2v\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=600) as connection:
        parts = f"{head}Content-Length: {len(request.body)}\r\n\r\n".encode(), request.body
        sender = threading.Thread(target=_send, args=(connection, parts))
        sender.start()
        received, total = bytearray(), 0
        while part := connection.recv(MB):
            total += len(part)
            received += part if len(received) < MB else b""
        sender.join()
    return int(received.split(b" ", 2)[1]), total - received.index(b"\r\n\r\n") - 4


def _send(connection: socket.socket, parts: Iterable[bytes]) -> None:
    with suppress(OSError):  # a rejection may close the connection
        for part in parts:
            connection.sendall(part)
