"""The server under test: `l2v serve` with the built-in model and a named prompt."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import ServerProcess


@contextmanager
def server() -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.json"
        prompts.write_text('{"sts": "Retrieve similar text:"}')
        with ServerProcess("--prompts", str(prompts), "--log-level", "debug") as running:
            running.wait_ready()
            yield running
