"""Listens on sockets that several processes share, and accepts connections from them."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from l2v.app.workers.table import SharedAmount

logger = logging.getLogger(__name__)

# How long a process waits for a process with fewer connections to accept a new connection.
_GRACE_SECONDS = 0.001
# How long a process stops accepting when it runs out of file descriptors.
_PAUSE_SECONDS = 1.0


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on the addresses of a host, where front ends accept connections; raises `OSError`."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = {(family, address) for family, _, _, _, address in found}
    listeners: list[socket.socket] = []
    for family, address in addresses:
        try:
            listeners.append(socket.create_server(address, family=family, backlog=2048))
        except OSError as error:
            unavailable = error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
            if not unavailable or len(addresses) == 1:  # the host may have another address that is available
                raise
    if not listeners:
        raise OSError(errno.EADDRNOTAVAIL, "no address of the host is available")
    return listeners


class Acceptor:
    """Accepts one connection at a time, and first waits a moment if another process has fewer connections.

    The event loops' own servers accept all waiting connections at once. If a client opens many connections, the process
    that wakes first then gets all of them.

    Args:
        listener: the shared socket.
        factory: makes the asyncio protocol that handles a connection.
        connections: the number of open connections of each process.
    """

    def __init__(
        self, listener: socket.socket, factory: Callable[[], asyncio.Protocol], connections: SharedAmount
    ) -> None:
        self._listener = listener
        self._factory = factory
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Stops accepting."""
        self._loop.remove_reader(self._listener)
        if self._pause:
            self._pause.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        """Waits until the accepted connections are set up."""
        await asyncio.gather(*self._opening, return_exceptions=True)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._on_waiting)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, then)

    def _on_waiting(self) -> None:
        if self._connections.own + len(self._opening) > self._connections.fewest:
            self._wait(_GRACE_SECONDS, self._accept_late)
        else:
            self._accept()

    def _accept_late(self) -> None:
        self._resume()
        self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process has taken the connection, or the client has left
        except OSError as error:
            logger.error("cannot accept connections", extra={"reason": error.strerror})
            self._wait(_PAUSE_SECONDS, self._resume)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> object:
        return await self._loop.connect_accepted_socket(self._factory, connection)
