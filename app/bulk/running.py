"""A run: rows pass from the source through the embedder into the sink, in batches and in order."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from itertools import islice

from l2v.app.bulk.embedders import EmbeddedRows, Embedder, identity
from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.reporting import Report, print_line
from l2v.app.bulk.rows import BadRow, Row
from l2v.app.bulk.settings import RunSettings
from l2v.app.bulk.sinks import Sink, open_sink
from l2v.app.bulk.sources import STDIN, RowSource, open_source

# An interruption loses the work since the last commit, and the batches in flight.
_SECONDS_BETWEEN_COMMITS = 1.0


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Consecutive rows of the input.

    Attributes:
        rows: the rows to embed.
        bad: the rows that the source rejects.
        last: the number of the last row.
        position: how far the input has been read, in the source's unit.
    """

    rows: list[Row]
    bad: list[BadRow]
    last: int
    position: int


def run(
    settings: RunSettings, open_embedder: Callable[[Callable[[str], None]], AbstractContextManager[Embedder]]
) -> None:
    """Embed a file, or the rest of it if an earlier run was interrupted.

    Args:
        settings: what to read and where to write it.
        open_embedder: a function that opens the embedder. It takes the callback `note` of `Client`.

    Raises:
        CommandError: the run cannot continue. Everything before the error is durable.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(open_sink(settings))
        source = stack.enter_context(closing(open_source(settings.input, settings.source_format, settings.columns)))
        _check_first_row(source, settings)
        report = Report(source.total)
        embedder = stack.enter_context(open_embedder(report.note))
        job = {"input": source.identity, "options": settings.identity, "model": identity(embedder.info)}
        sink.begin(job, settings.dimensions or embedder.info["dimensions"], source.types())
        if done := sink.progress.rows:
            print_line(f"resuming after row {done:,}")
        report.resumed = done
        with report.bar:
            _process(source, embedder, sink, report, settings)
        bad = f", {sink.progress.bad:,} set aside in {settings.skip_bad}" if sink.progress.bad else ""
        print_line(f"{report.speed}; {sink.progress.written:,} vectors in {sink.name}{bad}")


def _check_first_row(source: RowSource, settings: RunSettings) -> None:
    """Refuses an unknown column or a bad first row before the model is loaded, since loading may take minutes."""
    if source.identity["path"] == STDIN or settings.skip_bad:
        return  # standard input can be read only once; with --skip-bad, bad rows don't end the run
    with closing(open_source(settings.input, settings.source_format, settings.columns)) as again:
        _refuse(again, [row for row in islice(again.rows(0), 1) if isinstance(row, BadRow)])


def _process(source: RowSource, embedder: Embedder, sink: Sink, report: Report, settings: RunSettings) -> None:
    """Embed the rows that the sink does not have yet, and complete the output."""
    committed, warned = time.monotonic(), ""
    try:
        for batch, done in _embed(source, embedder, sink.progress.rows, report, settings.batch_size):
            bad = [*batch.bad, *done.bad]
            if settings.skip_bad is None:
                _refuse(source, bad)
            if embedder.warning != warned:
                warned = embedder.warning
                print_line(f"warning: {warned}")
            _refuse(source, sink.add(batch.last, done.rows, done.vectors, bad))
            if time.monotonic() - committed >= _SECONDS_BETWEEN_COMMITS:
                sink.commit()
                committed = time.monotonic()
            report.advance(batch.position, len(done.rows), done.tokens)
    except CommandError:
        sink.commit()
        raise
    sink.finish()


def _embed(
    source: RowSource, embedder: Embedder, skip: int, report: Report, batch_size: int
) -> Iterator[tuple[RowBatch, EmbeddedRows]]:
    """Yield the batches with their vectors, in order, while the embedder works on the next batches."""
    pending: deque[tuple[RowBatch, Future[EmbeddedRows]]] = deque()
    for index, batch in enumerate(_batches(source, skip, batch_size)):
        if index == 0:
            report.begin(batch.position)
        pending.append((batch, embedder.submit(batch.rows)))
        if len(pending) >= embedder.window:
            first, future = pending.popleft()
            yield first, future.result()
    for first, future in pending:
        yield first, future.result()


def _batches(source: RowSource, skip: int, size: int) -> Iterator[RowBatch]:
    """Batch the rows after the first `skip`. `size` includes bad rows, so that a resumed run forms the same batches."""
    rows = source.rows(skip)
    while group := list(islice(rows, size)):
        good = [row for row in group if isinstance(row, Row)]
        bad = [row for row in group if isinstance(row, BadRow)]
        yield RowBatch(good, bad, group[-1].number, source.position)


def _refuse(source: RowSource, bad: list[BadRow]) -> None:
    if bad:
        first = min(bad, key=lambda row: row.number)
        raise CommandError(f"{source.name}, row {first.number}: {first.reason} (--skip-bad FILE sets such rows aside)")
