"""`l2v evaluate`."""

import json
import sys
from collections.abc import Iterator, Sequence
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
    from training.evaluation import Encode

# Characters of one request to a service, which a slow one can embed within its time limit.
_REQUEST = 8192
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
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        if find_spec("mteb") is None:
            from training.errors import TrainingError

            raise TrainingError("evaluating needs the extra evaluate: pip install 'l2v[evaluate]'")
        from training.evaluation import Evaluated, evaluate, read_instructions, tasks_named

        instructions, tasks = read_instructions(self.instructions), tasks_named(self.tasks)
        name, encode, info = self._there() if self.url else self._here()
        settings = {name: info[name] for name in _SETTINGS}
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
        from app.commands.loading import encoder_for
        from models.sources import label

        encoder = encoder_for(self)
        name = "+".join(label(source).replace("/", "_") for source in (self.model, *self.adapters))
        return name, encoder.encode, {"dtype": encoder.dtype, **encoder.describe()}

    def _there(self) -> "tuple[str, Encode, dict[str, Any]]":
        import numpy as np
        import orjson

        info = self.ask("GET", "info")
        limits = info["limits"]

        def encode(inputs: "Sequence[Input]") -> "NDArray[np.float32]":
            texts = [{"text": i.text[: limits["max_characters"]], "instruction": i.instruction} for i in inputs]
            parts = []
            for request in _requests(texts, limits["max_inputs"]):
                content = orjson.dumps({"inputs": request, "normalize": False})
                parts.append(np.array(self.ask("POST", "embed", content)["embeddings"], np.float32))
            return np.concatenate(parts)

        return str(info["model"]).replace("/", "_"), encode, info


def _requests(texts: Sequence[dict[str, str]], most: int) -> Iterator[list[dict[str, str]]]:
    request: list[dict[str, str]] = []
    size = 0
    for text in texts:
        characters = len(text["text"]) + len(text["instruction"])
        if request and (size + characters > _REQUEST or len(request) == most):
            yield request
            request, size = [], 0
        request.append(text)
        size += characters
    yield request
