"""A table in shared memory that holds how much of each limit each process uses.

Only one process writes each number, and all processes read it. So the table needs no lock. (A process that ends might
never release a lock.) But several front ends that check a limit at the same moment may all pass the check, so each
front end beyond the first can exceed a limit by one request.
"""

import mmap
import os
import time
from enum import IntEnum

from l2v.app.engine.usage import Amount, Usage

_BYTES = 8


class Column(IntEnum):
    """The numbers of a front end. The engine writes `RECEIVED_TOKENS`; the front end writes the others."""

    REQUESTS = 0
    CONNECTIONS = 1
    BODY_BYTES = 2
    RESERVED_TOKENS = 3
    SENT_TOKENS = 4  # the tokens of all jobs that the front end has sent to the engine
    RECEIVED_TOKENS = 5  # the tokens of all jobs that the engine has received from the front end
    HEARTBEATS = 6  # a count that rises while the front end's event loop runs


class EngineCell(IntEnum):
    """The numbers of the engine, which follow the front ends' numbers in the table."""

    QUEUE_TOKENS = 0
    TOKENS_PER_SECOND = 1
    HEARTBEAT = 2  # nanoseconds of the monotonic clock
    READY = 3  # 1 once the encoder is loaded and all front ends are open


class Table:
    """The numbers of all processes.

    Args:
        descriptor: the descriptor of an open file, which gets the table's size and is mapped into memory.
        front_ends: the number of front ends.
    """

    def __init__(self, descriptor: int, front_ends: int) -> None:
        cells = len(Column) * front_ends + len(EngineCell)
        if os.fstat(descriptor).st_size != cells * _BYTES:
            os.ftruncate(descriptor, cells * _BYTES)
        self._cells = memoryview(mmap.mmap(descriptor, cells * _BYTES)).cast("q")
        self._front_ends = front_ends

    def column(self, column: Column) -> memoryview:
        """One number of each front end, by slot."""
        return self._cells[column * self._front_ends : (column + 1) * self._front_ends]

    @property
    def engine(self) -> memoryview:
        """The numbers of the engine, by `EngineCell`."""
        return self._cells[len(Column) * self._front_ends :]

    def clear(self, slot: int) -> None:
        """Sets the numbers of a front end that has ended to 0."""
        for column in Column:
            self.column(column)[slot] = 0


class SharedAmount(Amount):
    """An amount of which every front end uses a part."""

    def __init__(self, parts: memoryview, slot: int) -> None:
        self._parts, self._slot = parts, slot

    def add(self, amount: int) -> None:
        self._parts[self._slot] += amount

    @property
    def own(self) -> int:
        return int(self._parts[self._slot])

    @property
    def total(self) -> int:
        return sum(self._parts)

    @property
    def fewest(self) -> int:
        """The smallest amount that a front end uses."""
        return min(self._parts)


class SharedUsage(Usage):
    """The amounts in use by all front ends. Their `own` and `add` concern only the front end in `slot`."""

    connections: SharedAmount

    def __init__(self, table: Table, slot: int) -> None:
        def amount(column: Column) -> SharedAmount:
            return SharedAmount(table.column(column), slot)

        self.requests, self.connections = amount(Column.REQUESTS), amount(Column.CONNECTIONS)
        self.body_bytes = amount(Column.BODY_BYTES)
        self.reserved_tokens, self.sent_tokens = amount(Column.RESERVED_TOKENS), amount(Column.SENT_TOKENS)
        self.heartbeats = amount(Column.HEARTBEATS)
        self._received, self._engine = table.column(Column.RECEIVED_TOKENS), table.engine

    @property
    def queue_tokens(self) -> int:
        """The sum of the tokens that wait for a batch, are on their way to the engine, or are reserved."""
        on_their_way = self.sent_tokens.total - sum(self._received)
        waiting: int = self._engine[EngineCell.QUEUE_TOKENS]
        return waiting + on_their_way + self.reserved_tokens.total

    @property
    def tokens_per_second(self) -> int:
        """The recent rate of the engine; 0 before the first forward pass."""
        rate: int = self._engine[EngineCell.TOKENS_PER_SECOND]
        return rate

    @property
    def is_engine_ready(self) -> bool:
        """Whether requests are accepted. All front ends see the change at the same moment."""
        return bool(self._engine[EngineCell.READY])

    @property
    def engine_silence(self) -> float:
        """Seconds since the engine's process last gave a sign of life."""
        return (time.monotonic_ns() - self._engine[EngineCell.HEARTBEAT]) / 1e9
