"""A server process with injected faults, started by the launcher."""

import os
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from prometheus_client.parser import text_string_to_metric_families

from l2v.models.runtime import LIBRARIES
from tests.chaos.faults import VARIABLE, Faults
from tests.serving import ServerProcess

ROOT = Path(__file__).parents[2]


class ChaosServer(ServerProcess):
    """`l2v serve` with the built-in model and injected faults."""

    def __init__(self, *flags: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="l2v-chaos-")
        self._faults = Path(self._folder.name) / "faults.json"
        Faults().write(self._faults)
        # `l2v` sets these before it imports torch, but the launcher imports torch earlier.
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {VARIABLE: str(self._faults), "PYTHONPATH": paths, **LIBRARIES}
        super().__init__(*flags, **environment)
        self._command = [sys.executable, "-m", "tests.chaos.launcher", *self._command[1:]]

    def __enter__(self) -> Self:
        super().__enter__()
        self._psutil = psutil.Process(self.process.pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        super().__exit__(kind, error, _)
        self._folder.cleanup()

    def fail(self, **faults: Any) -> None:
        """Replaces the current faults."""
        Faults(**faults).write(self._faults)

    @property
    def memory(self) -> int:
        """Resident memory in bytes."""
        return int(self._psutil.memory_info().rss)

    @property
    def descriptors(self) -> int:
        return int(self._psutil.num_fds())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def statuses(self) -> dict[str, int]:
        """The status that the server logged for each request id."""
        return {
            line["request_id"]: line["status"]
            for line in self.log_lines
            if line["message"] == "request" and "request_id" in line
        }
