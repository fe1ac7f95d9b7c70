"""Scores on the tasks of mteb, of an encoder in this process or behind a URL."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks.abstask import AbsTask, get_abstask_prompt
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.cache import ResultCache
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType
from numpy.typing import NDArray

from l2v.models import Input
from l2v.models.errors import first_line
from l2v.training.errors import TrainingError

Encode = Callable[[Sequence[Input]], NDArray[np.float32]]
# By task: the instruction, or one for queries and one for documents.
Instructions = Mapping[str, str | Mapping[str, str]]


@dataclass(frozen=True)
class Score:
    """A task's main score, as mteb counts it: from 0 to 1."""

    task: str
    metric: str
    score: float
    instruction: str


class Evaluated(AbsEncoder):
    """An encoder as mteb takes it, with the instruction of each task.

    Args:
        name: of the model, under which results are kept.
        encode: inputs → [n, d].
        instructions: of tasks; where a task is not among them, mteb's own.
        settings: how texts become vectors, as lengths and pooling.
    """

    def __init__(self, name: str, encode: Encode, instructions: Instructions, settings: Mapping[str, Any]) -> None:
        self._encode, self._instructions, self._settings = encode, instructions, settings
        self._name = name if name.count("/") == 1 else f"l2v/{name.replace('/', '_')}"
        self._probe = np.round(encode([Input("the cat sits on the mat")]), 2) + 0.0
        self.mteb_model_meta = ModelMeta.create_empty({"name": self._name})

    def prepare(self, task: TaskMetadata) -> None:
        """Names the results of a task so that none is taken for this one's that may differ.

        They differ if the model was trained anew under the same name, its instructions changed, or texts were cut
        elsewhere.
        """
        instructions = [self.instruction(task, side) for side in PromptType]
        told = json.dumps([instructions, self._settings], sort_keys=True)
        revision = hashlib.sha256(self._probe.tobytes() + told.encode()).hexdigest()[:12]
        self.mteb_model_meta = ModelMeta.create_empty({"name": self._name, "revision": revision})

    def encode(
        self,
        inputs: Iterable[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> NDArray[np.float32]:
        """[n, d], in the order of the batches."""
        instruction = self.instruction(task_metadata, prompt_type)
        texts = [text for batch in inputs for text in batch["text"]]
        # mteb's data hold blank texts here and there, which have no embedding of their own.
        return self._encode([Input(text if text.strip() else "-", instruction) for text in texts])

    def instruction(self, task: TaskMetadata, side: PromptType | None) -> str:
        """What stands before a text: on both sides of a symmetric task, else on queries only unless told otherwise."""
        given = self._instructions.get(task.name)
        own = given is None
        if given is None:
            given = task.prompt or get_abstask_prompt(task.name)
        if not isinstance(given, str):
            text = given.get(side.value if side else "query", "")
        else:
            text = "" if side == PromptType.document else given
        # mteb's are sentences; the models were trained with a colon there, as the reference's have one.
        return text.strip(".") + ":" if own and text and not text.endswith(":") else text


def evaluate(encoder: Evaluated, tasks: Sequence[AbsTask], out: Path) -> list[Score]:
    """Runs the tasks that have no result in `out` yet, and gives the main score of all.

    Raises:
        TrainingError: if a task's data cannot be had.
    """
    cache = ResultCache(out)
    scores = []
    for task in tasks:
        encoder.prepare(task.metadata)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (result,) = mteb.evaluate(encoder, task, cache=cache, overwrite_strategy="only-missing").task_results  # type: ignore[arg-type]
        except OSError as error:
            raise TrainingError(f"the data of {task.metadata.name} cannot be fetched ({first_line(error)})") from error
        instruction = encoder.instruction(task.metadata, PromptType.query)
        scores.append(
            Score(task.metadata.name, task.metadata.main_score, round(float(result.get_score()), 6), instruction)
        )
    return scores


def tasks_named(names: Sequence[str]) -> list[AbsTask]:
    """mteb's tasks; raises `TrainingError` for a name that it does not know."""
    try:
        return [mteb.get_task(name) for name in names]
    except KeyError as error:
        raise TrainingError(f"mteb has no such task: {error.args[0]}") from error


def read_instructions(file: Path | None) -> Instructions:
    """A JSON object of tasks, each with its instruction or {"query": …, "document": …}, as the reference has one.

    Raises:
        TrainingError: if the file is no such thing.
    """
    if file is None:
        return {}
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read: {error}") from error
    if not isinstance(given, dict):
        raise TrainingError(f"{file} must hold a JSON object of tasks and their instructions")
    for task, value in given.items():
        texts = list(value.values()) if isinstance(value, dict) else [value]
        if not all(isinstance(text, str) for text in texts) or (
            isinstance(value, dict) and not value.keys() <= {"query", "document"}
        ):
            raise TrainingError(f'{file}: {task} must be an instruction, or {{"query": …, "document": …}}')
    return given
