"""`l2v evaluate`."""

from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.settings import ClientSettings
from l2v.app.commands.output import show
from l2v.models.settings import Names
from l2v.training.errors import TrainingError


class Evaluate(ClientSettings):
    """Score an encoder on MTEB tasks, in this process or through a service. An interrupted run resumes if repeated.

    Examples:
        l2v evaluate STSBenchmark,SciFact --model sheared-llama-1.3b-supervised
        l2v evaluate SciFact --url http://localhost:8080 --instructions task_to_instructions.json
    """

    tasks: CliPositionalArg[Names] = Field(description="Names of MTEB tasks, comma-separated")
    out: Path = Field(Path("results"), description="Folder for the results; tasks that have a result there are skipped")
    instructions: Path | None = Field(
        None, description="JSON file that maps tasks to instructions; default: MTEB's instructions"
    )
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        if find_spec("mteb") is None:
            raise TrainingError("evaluation needs the extra `evaluate`: pip install 'l2v[evaluate]'")
        from l2v.app.bulk.embedders import embed_inputs
        from l2v.models.sources import label
        from l2v.training.evaluation import MtebEncoder, evaluate, find_tasks, read_instructions

        instructions, tasks = read_instructions(self.instructions), find_tasks(self.tasks)
        with self.open_embedder(EmbedOptions(normalize=False)) as embedder:
            parts = [embedder.info["model"]] if self.url else map(label, (self.model, *self.chosen_adapters))
            name = "+".join(parts).replace("/", "_")
            settings = {name: setting["value"] for name, setting in embedder.info["settings"].items()}
            settings["dtype"] = embedder.info["dtype"]
            encoder = MtebEncoder(name, partial(embed_inputs, embedder), instructions, settings)
            scores = evaluate(encoder, tasks, self.out)
        rows = [asdict(score) | {"score": round(100 * score.score, 2)} for score in scores]
        columns = ("task", "metric", "score", "instruction")
        show({"model": name, "scores": rows}, self.as_json, columns, [tuple(row.values()) for row in rows])
