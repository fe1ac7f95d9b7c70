"""A run: batches through the engine into the sink, in order, a window of them at a time."""

import time
from collections import deque
from concurrent.futures import Future

from l2v.app.bulk.engines import Embedded, Engine
from l2v.app.bulk.errors import BadRowError, BulkError
from l2v.app.bulk.reporting import Report
from l2v.app.bulk.rows import BadRow, Batch, batches
from l2v.app.bulk.sinks import Sink
from l2v.app.bulk.sources import Source

# So much work an interruption may cost beside the batches in flight.
_SECONDS_BETWEEN_COMMITS = 1.0


class Run:
    """Takes an input, from the row where the sink stands, to its end.

    Args:
        batch_size: rows of one batch.
        skip_bad: set bad rows aside rather than ending at the first.
    """

    def __init__(
        self, source: Source, engine: Engine, sink: Sink, report: Report, *, batch_size: int, skip_bad: bool
    ) -> None:
        self._source, self._engine, self._sink, self._report = source, engine, sink, report
        self._batch_size, self._skip_bad = batch_size, skip_bad
        self._committed = time.monotonic()

    def __call__(self) -> None:
        """Runs.

        Raises:
            BulkError: it cannot go on; what was done until then is durable.
        """
        waiting: deque[tuple[Batch, Future[Embedded]]] = deque()
        begun = False
        try:
            for batch in batches(self._source, self._sink.progress.rows, self._batch_size):
                if not begun:
                    self._report.begin(batch.position, self._source.total)
                    begun = True
                waiting.append((batch, self._engine.submit(batch.rows)))
                if len(waiting) >= self._engine.window:
                    self._settle(*waiting.popleft())
            while waiting:
                self._settle(*waiting.popleft())
        except BulkError:
            self._sink.commit()
            raise
        self._sink.finish()

    def _settle(self, batch: Batch, future: "Future[Embedded]") -> None:
        """Waits for a batch and hands it on."""
        done = future.result()
        bad = [*batch.bad, *done.bad]
        if not self._skip_bad:
            self._refuse(bad)
        self._refuse(self._sink.add(batch.last, done.rows, done.vectors, bad))
        if time.monotonic() - self._committed >= _SECONDS_BETWEEN_COMMITS:
            self._sink.commit()
            self._committed = time.monotonic()
        self._report.advance(batch.position, len(done.rows), done.tokens)

    def _refuse(self, bad: list[BadRow]) -> None:
        if bad:
            first = min(bad, key=lambda row: row.number)
            raise BadRowError(
                f"{self._source.name}, row {first.number}: {first.reason} (--skip-bad FILE sets such rows aside)"
            )
