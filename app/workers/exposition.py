"""Merges the metrics of all processes.

The engine counts in memory. Each front end counts in files in the service's private folder. If a front end ends, its
replacement continues from the counters in these files.
"""

import os
import struct
import time
from itertools import chain
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from l2v.app.metrics import Merged

_RETRY_SECONDS = 0.05


def count_in_files(folder: Path, slot: int) -> None:
    """Makes all metrics of this process count in files. Call this function before the first metric is made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]


def forget_gauges(folder: Path, slot: int) -> None:
    """Removes the gauges of a front end that has ended, but keeps its counters."""
    mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]


def render(registry: CollectorRegistry, folder: Path) -> bytes:
    """The metrics of the engine and of all front ends in Prometheus' text format."""
    try:
        return _render(registry, folder)
    except struct.error:  # a front end that starts has created its file, but has not written it yet
        time.sleep(_RETRY_SECONDS)
        return _render(registry, folder)


def _render(registry: CollectorRegistry, folder: Path) -> bytes:
    front_ends = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(Merged(chain(registry.collect(), front_ends.collect())))  # type: ignore[no-untyped-call]
