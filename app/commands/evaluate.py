"""`l2v evaluate`."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.settings import ClientSettings
from l2v.app.commands.output import show
from l2v.app.engine.output_types import OutputDtype, dequantize
from l2v.app.engine.vectors import Vectors
from l2v.models.settings import Names
from l2v.models.types import Input
from l2v.training.columns import Mappings
from l2v.training.errors import TrainingError

if TYPE_CHECKING:
    from l2v.app.bulk.embedders import Embedder
    from l2v.training.file_evaluation import Score

_FILES = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")


class Evaluate(ClientSettings):
    """Score an encoder on MTEB tasks or on your own texts, in this process or through a service.

    A file holds pairs (query, positive, score) or triplets (query, positive, negative). To resume an interrupted
    run of MTEB tasks, run the same command again.

    Examples:
        l2v evaluate STSBenchmark,SciFact --model sheared-llama-1.3b-supervised
        l2v evaluate SciFact --url http://localhost:8080 --instructions task_to_instructions.json
        l2v evaluate pairs.csv --columns query=sentence1,positive=sentence2 --output-dtype int8
    """

    tasks: CliPositionalArg[Names] = Field(description="Names of MTEB tasks or files, comma-separated")
    out: Path = Field(
        Path("results"), description="Folder for the results of MTEB tasks; tasks with a result there are skipped"
    )
    instructions: Path | None = Field(
        None, description="JSON file that maps MTEB tasks to instructions; default: MTEB's instructions"
    )
    instruction: str = Field("", description="Instruction for queries in files, unless a query has its own")
    columns: Mappings = Field((), description="Columns whose names differ from the fields', like `query=question`")
    dimensions: int | None = Field(None, ge=1, description="Keep this many leading dimensions")
    output_dtype: OutputDtype = Field("float", description="Type of the numbers, as in `l2v embed`")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        if find_spec("mteb") is None:
            raise TrainingError("evaluation needs the extra `evaluate`: pip install '.[evaluate]'")
        from l2v.models.sources import label

        files = [task for task in self.tasks if Path(task).suffix.lower() in _FILES]
        if missing := next((file for file in files if not Path(file).is_file()), None):
            raise TrainingError(f"{missing}: there is no such file")
        evaluate_tasks = self._prepare([task for task in self.tasks if task not in files])
        with self.open_embedder(
            EmbedOptions(dimensions=self.dimensions, normalize=False, output_dtype=self.output_dtype)
        ) as embedder:
            parts = [embedder.info["model"]] if self.url else map(label, (self.model, *self.chosen_adapters))
            name = "+".join(parts).replace("/", "_")
            scores = self._score_files([Path(file) for file in files], embedder)
            scores += evaluate_tasks(name, embedder)
        rows = [asdict(score) | {"score": round(100 * score.score, 2)} for score in scores]
        columns = ("task", "metric", "score", "instruction")
        show({"model": name, "scores": rows}, self.as_json, columns, [tuple(row.values()) for row in rows])

    def _score_files(self, files: Sequence[Path], embedder: "Embedder") -> "list[Score]":
        if not files:
            return []
        from l2v.training.file_evaluation import evaluate_file

        return [evaluate_file(file, self.columns, lambda inputs: self._encode(embedder, inputs), self.instruction)
                for file in files]  # fmt: skip

    def _prepare(self, names: Sequence[str]) -> "Callable[[str, Embedder], list[Score]]":
        """Finds MTEB tasks before the model is loaded; returns a function that scores an encoder on these tasks."""
        if not names:
            return lambda name, embedder: []
        from l2v.training.evaluation import MtebEncoder, evaluate, find_tasks, read_instructions

        instructions, tasks = read_instructions(self.instructions), find_tasks(names)

        def run(name: str, embedder: "Embedder") -> "list[Score]":
            settings = {name: setting["value"] for name, setting in embedder.info["settings"].items()}
            settings["dtype"] = embedder.info["dtype"]
            settings |= {"dimensions": self.dimensions, "output_dtype": self.output_dtype}
            encoder = MtebEncoder(name, lambda inputs: self._encode(embedder, inputs), instructions, settings)
            return evaluate(encoder, tasks, self.out)

        return run

    def _encode(self, embedder: "Embedder", inputs: Sequence[Input]) -> Vectors:
        from l2v.app.bulk.embedders import embed_inputs

        return dequantize(embed_inputs(embedder, inputs), self.output_dtype)
