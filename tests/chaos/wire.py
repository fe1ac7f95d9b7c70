"""A minimal HTTP client on asyncio streams: fast enough for the load, and able to misbehave."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
# Timeout of a request in seconds. It is longer than every limit that docs/reliability.md promises.
TIMEOUT = 240.0


@dataclass(slots=True)
class Reply:
    """The outcome of a request.

    Attributes:
        status: of the response; 0 if the connection ended before the response, -1 if it ended during the response.
        seconds: time between the moment for which the request was scheduled and its last byte.
        done: time of the last byte, by the monotonic clock.
        headers: by lower-case name.
    """

    status: int
    seconds: float
    done: float
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def content(self) -> Any:
        return json.loads(self.body)


def post(path: str, content: Any, headers: dict[str, str] | None = None) -> bytes:
    """Builds a POST request."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = {"Host": "l2v", "Content-Type": JSON, "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: l2v\r\n\r\n".encode()


class Wire:
    """A pool of keep-alive connections to one port."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes, due: float | None = None, *, fresh: bool = False) -> Reply:
        """Sends a request, on a new connection if `fresh`. A connection error is returned as a reply, not raised."""
        started = time.monotonic() if due is None else due
        status, headers, body = 0, {}, b""
        writer = None
        try:
            async with asyncio.timeout(TIMEOUT):
                reader, writer = (None if fresh else self._pop()) or await open_connection(self._port)
                writer.write(request)
                status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
                status = -1
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                status = int(status_line.split()[1])
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            pass
        done = time.monotonic()
        if status > 0 and writer and not fresh and headers.get("connection") != "close":
            self._free.append((reader, writer))
        elif writer:
            writer.close()
        return Reply(status, done - started, done, headers, body)

    def _pop(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Takes an idle connection that the server has not closed."""
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    async def close(self) -> None:
        for _, writer in self._free:
            writer.close()
        self._free.clear()
        await asyncio.sleep(0)


async def open_connection(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, limit=2**24)
