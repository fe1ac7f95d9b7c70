"""HTTP by hand, on asyncio's streams: cheap enough for the load, and open to every misbehaviour of a client."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

JSON = "application/json"
# Seconds after which a client of the harness gives up, which no promise allows to come to pass.
PATIENCE = 240.0


@dataclass(slots=True)
class Reply:
    """What came of a request.

    Attributes:
        status: of the answer; 0 where the connection ended before the first byte of one; -1 where it ended within.
        seconds: from when it should have been sent to the last byte.
        done: when that was, by the monotonic clock.
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
    """The bytes of a POST."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    lines = {"Host": "l2v", "Content-Type": JSON, "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: l2v\r\n\r\n".encode()


class Wire:
    """Connections to one port, kept open and used again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes, due: float | None = None, *, fresh: bool = False) -> Reply:
        """Sends a request, on a connection of its own if `fresh`; never raises for what the server does."""
        started = time.monotonic() if due is None else due
        status, headers, body = 0, {}, b""
        writer = None
        try:
            async with asyncio.timeout(PATIENCE):
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
        """A connection that is free, and that the server has not closed since."""
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
