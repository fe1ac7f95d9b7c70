"""`l2v evaluate`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from app.commands.client import ClientSettings
from app.settings import Names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from models import Input

# Inputs of one request to a service.
_REQUEST = 256


class Evaluate(ClientSettings):
    """Score an encoder on tasks of mteb, here or behind a URL. A run that was cut off goes on with the next task.

    Examples:
        l2v evaluate STSBenchmark,SciFact --model sheared-llama-1.3b-supervised
        l2v evaluate SciFact --url http://localhost:8080 --instructions task_to_instructions.json
    """

    tasks: CliPositionalArg[Names] = Field(description="Tasks by mteb's names, comma-separated")
    out: Path = Field(Path("results"), description="Folder of the results; a task that has one there is not run again")
    instructions: Path | None = Field(None, description="JSON file: task → instruction; where unset, mteb's own")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        if find_spec("mteb") is None:
            from training.errors import TrainingError

            raise TrainingError("evaluating needs the extra evaluate: pip install 'l2v[evaluate]'")
        from training.evaluation import Evaluated, evaluate, read_instructions, tasks_named

        instructions, tasks = read_instructions(self.instructions), tasks_named(self.tasks)
        name, encode = self._there() if self.url else self._here()
        scores = evaluate(Evaluated(name, encode, instructions), tasks, self.out)
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

    def _here(self) -> tuple[str, Any]:
        from app.commands.loading import encoder_for
        from models.sources import label

        encoder = encoder_for(self)
        name = "+".join(label(source).replace("/", "_") for source in (self.model, *self.adapters))
        return name, encoder.encode

    def _there(self) -> tuple[str, Any]:
        import numpy as np
        import orjson

        def encode(inputs: "Sequence[Input]") -> "NDArray[np.float32]":
            parts = []
            for start in range(0, len(inputs), _REQUEST):
                asked = [{"text": i.text, "instruction": i.instruction} for i in inputs[start : start + _REQUEST]]
                content = orjson.dumps({"inputs": asked, "normalize": False})
                parts.append(np.array(self.ask("POST", "embed", content)["embeddings"], np.float32))
            return np.concatenate(parts)

        return str(self.ask("GET", "info")["model"]).replace("/", "_"), encode
