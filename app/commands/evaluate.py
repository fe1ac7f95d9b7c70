"""`l2v evaluate`."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.rows import Row
from l2v.app.commands.client import ClientSettings
from l2v.app.commands.output import show
from l2v.models.settings import Names
from l2v.training.errors import TrainingError

if TYPE_CHECKING:
    from l2v.app.bulk.embedders import Embedder
    from l2v.app.engine.vectors import Vectors
    from l2v.models import Input

# Texts per batch, or per request to a service.
_BATCH_SIZE = 256
# The settings that the vectors depend on.
_SETTINGS = ("dtype", "attention", "pooling", "template", "max_length", "doc_max_length", "skip_instruction")


class Evaluate(ClientSettings):
    """Score an encoder on MTEB tasks, in this process or through a service. An interrupted run resumes by task.

    Examples:
        l2v evaluate STSBenchmark,SciFact --model sheared-llama-1.3b-supervised
        l2v evaluate SciFact --url http://localhost:8080 --instructions task_to_instructions.json
    """

    tasks: CliPositionalArg[Names] = Field(description="Names of MTEB tasks, comma-separated")
    out: Path = Field(Path("results"), description="Folder for the results; tasks with a result there are not rerun")
    instructions: Path | None = Field(None, description="JSON file: task → instruction; default: MTEB's instructions")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        if find_spec("mteb") is None:
            raise TrainingError("evaluation needs the extra `evaluate`: pip install 'l2v[evaluate]'")
        from l2v.models.sources import label
        from l2v.training.evaluation import MtebEncoder, evaluate, find_tasks, read_instructions

        instructions, tasks = read_instructions(self.instructions), find_tasks(self.tasks)
        with self.open_embedder(EmbedOptions(normalize=False)) as embedder:
            name = "+".join([embedder.info["model"], *map(label, () if self.url else self.adapters)]).replace("/", "_")
            settings = {setting: embedder.info.get(setting) for setting in _SETTINGS}
            scores = evaluate(MtebEncoder(name, partial(encode, embedder), instructions, settings), tasks, self.out)
        rows = [asdict(score) | {"score": round(100 * score.score, 2)} for score in scores]
        columns = ("task", "metric", "score", "instruction")
        show({"model": name, "scores": rows}, self.as_json, columns, [tuple(row.values()) for row in rows])


def encode(embedder: "Embedder", inputs: "Sequence[Input]") -> "Vectors":
    """The vectors of a task's inputs, [n, d]. Raises `CommandError` for an input that cannot be embedded."""
    import numpy as np

    max_characters = embedder.info.get("limits", {}).get("max_characters")  # services have a limit
    rows = [Row(number, each.text[:max_characters], each.instruction) for number, each in enumerate(inputs, 1)]
    starts = range(0, max(1, len(rows)), _BATCH_SIZE)
    batches = [batch.result() for batch in [embedder.submit(rows[start : start + _BATCH_SIZE]) for start in starts]]
    if bad := next((row for batch in batches for row in batch.bad), None):
        raise CommandError(f"a text of the task cannot be embedded: {bad.reason}")
    return np.concatenate([batch.vectors for batch in batches])
