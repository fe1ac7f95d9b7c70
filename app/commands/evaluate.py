"""`l2v evaluate`."""

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.commands.client import BatchTokens, ClientSettings
from l2v.models.settings import Names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from l2v.models import Input
    from l2v.training.evaluation import Encode

# Texts of a request to a service, and requests at once; those that take it too long are divided.
_ROWS, _CONCURRENCY = 64, 4
# Of which both an encoder and a service tell, and which the vectors depend on.
_SETTINGS = ("dtype", "pooling", "template", "max_length", "doc_max_length", "skip_instruction")


class Evaluate(ClientSettings):
    """Score an encoder on tasks of mteb, here or behind a URL. A run that was cut off goes on with the next task.

    Examples:
        l2v evaluate STSBenchmark,SciFact --model sheared-llama-1.3b-supervised
        l2v evaluate SciFact --url http://localhost:8080 --instructions task_to_instructions.json
    """

    tasks: CliPositionalArg[Names] = Field(description="Tasks by mteb's names, comma-separated")
    out: Path = Field(Path("results"), description="Folder of the results; a task that has one there is not run again")
    instructions: Path | None = Field(None, description="JSON file: task → instruction; where unset, mteb's own")
    max_batch_tokens: BatchTokens = None
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        if find_spec("mteb") is None:
            from l2v.training.errors import TrainingError

            raise TrainingError("evaluating needs the extra evaluate: pip install 'l2v[evaluate]'")
        from l2v.training.evaluation import Evaluated, evaluate, read_instructions, tasks_named

        instructions, tasks = read_instructions(self.instructions), tasks_named(self.tasks)
        with ExitStack() as stack:
            name, encode, info = self._there(stack) if self.url else self._here()
            settings = {setting: info[setting] for setting in _SETTINGS}
            scores = evaluate(Evaluated(name, encode, instructions, settings), tasks, self.out)
        rows = [asdict(score) | {"score": round(100 * score.score, 2)} for score in scores]
        if self.as_json:
            print(json.dumps({"model": name, "scores": rows}, indent=2))
            return
        from rich.console import Console
        from rich.table import Table

        table = Table("task", "metric", "score", "instruction")
        for row in rows:
            table.add_row(row["task"], row["metric"], f"{row['score']:.2f}", row["instruction"])
        Console(file=sys.stdout).print(table)

    def _here(self) -> "tuple[str, Encode, dict[str, Any]]":
        from l2v.app.bulk.errors import BulkError
        from l2v.app.commands.loading import encoder_for
        from l2v.models import InputError
        from l2v.models.faults import Fault
        from l2v.models.sources import label

        encoder = encoder_for(self)
        name = "+".join(label(source).replace("/", "_") for source in (self.model, *self.adapters))

        def encode(inputs: "Sequence[Input]") -> "NDArray[np.float32]":
            try:
                return encoder.encode(inputs, self.max_batch_tokens)
            except InputError as error:
                raise BulkError(f"a text of the task cannot be encoded: {error}") from None
            except RuntimeError as error:
                if Fault.of(error) is not Fault.OUT_OF_MEMORY:
                    raise
                raise BulkError("a batch does not fit into memory: lower --max-batch-tokens") from None

        return name, encode, encoder.describe()

    def _there(self, stack: ExitStack) -> "tuple[str, Encode, dict[str, Any]]":
        import numpy as np

        from l2v.app.bulk.engines import Options
        from l2v.app.bulk.errors import BulkError
        from l2v.app.bulk.remote import RemoteEngine
        from l2v.app.bulk.rows import Row

        assert self.url is not None
        options = Options(normalize=False)
        engine = stack.enter_context(RemoteEngine(self.url, self.key, options, _CONCURRENCY, self.retry_for))
        longest = engine.info["limits"]["max_characters"]

        def encode(inputs: "Sequence[Input]") -> "NDArray[np.float32]":
            rows = [Row(number, i.text[:longest], i.instruction) for number, i in enumerate(inputs, 1)]
            parts = [engine.submit(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS)]
            embedded = [part.result() for part in parts]
            if bad := next((row for part in embedded for row in part.bad), None):
                raise BulkError(f"the service refuses a text: {bad.reason}")
            return np.concatenate([part.vectors for part in embedded])

        return str(engine.info["model"]).replace("/", "_"), encode, engine.info
