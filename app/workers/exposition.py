"""The metrics of all processes as those of one.

The engine counts in its memory, and each front end in files of the service's private folder, by which its counters
outlive it: a front end that is replaced goes on where the former one ended.
"""

import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample


def count_in_files(folder: Path, slot: int) -> None:
    """Makes all metrics of this process count in files. Call it before the first metric is made."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]


def forget_gauges(folder: Path, slot: int) -> None:
    """Removes the gauges of a front end that has ended; its counters stay."""
    mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]


def render(registry: CollectorRegistry, folder: Path) -> bytes:
    """The metrics of the engine and of all front ends in Prometheus' text format."""
    front_ends = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(_Sum(chain(registry.collect(), front_ends.collect())))  # type: ignore[no-untyped-call]


class _Sum(Collector):
    """Families of the same name as one, and samples of the same name and labels as their sum."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: dict[str, Metric] = {}
        samples: dict[tuple[str, frozenset[tuple[str, str]]], Sample] = {}
        for family in families:
            self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                known = samples.get(key)
                samples[key] = known._replace(value=known.value + sample.value) if known else sample
                if not known:
                    self._families[family.name].samples.append(sample)
        for family in self._families.values():
            family.samples = [samples[s.name, frozenset(s.labels.items())] for s in family.samples]

    def collect(self) -> Iterable[Metric]:
        return self._families.values()
