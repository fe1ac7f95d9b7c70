"""Evaluation of an encoder on MTEB tasks."""

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
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
from l2v.training.file_evaluation import Encode, Score

# Task → instruction, or one instruction for queries and one for documents.
Instructions = Mapping[str, str | Mapping[str, str]]


class MtebEncoder(AbsEncoder):
    """An encoder as an MTEB model, with an instruction for each task.

    Args:
        name: the name under which MTEB stores results.
        encode: returns the vectors of inputs, [n, d].
        instructions: the instructions by task; other tasks use MTEB's own instructions.
        settings: other settings that affect the vectors, such as pooling and lengths.
    """

    def __init__(self, name: str, encode: Encode, instructions: Instructions, settings: Mapping[str, Any]) -> None:
        self._encode, self._instructions, self._settings = encode, instructions, settings
        self._name = name if name.count("/") == 1 else f"l2v/{name.replace('/', '_')}"
        self._probe = np.round(encode([Input("the cat sits on the mat")]), 2) + 0.0
        self.mteb_model_meta = ModelMeta.create_empty({"name": self._name})

    def prepare(self, task: TaskMetadata) -> None:
        """Set the revision under which the results of a task are stored.

        The revision depends on the vector of a probe (rounded), the instructions and the settings, so that MTEB does
        not reuse the results of another model.
        """
        instructions = [self.instruction(task, prompt_type) for prompt_type in PromptType]
        described = json.dumps([instructions, self._settings], sort_keys=True)
        revision = hashlib.sha256(self._probe.tobytes() + described.encode()).hexdigest()[:12]
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
        """Encode the texts of all batches, in order: [n, d]."""
        instruction = self.instruction(task_metadata, prompt_type)
        texts = [text for batch in inputs for text in batch["text"]]
        # Some datasets contain blank texts, which cannot be embedded.
        return self._encode([Input(text if text.strip() else "-", instruction) for text in texts])

    def instruction(self, task: TaskMetadata, prompt_type: PromptType | None) -> str:
        """The instruction of a task. A single instruction applies to all texts except documents."""
        given = self._instructions.get(task.name)
        from_mteb = given is None
        if given is None:
            given = task.prompt or get_abstask_prompt(task.name)
        if not isinstance(given, str):
            text = given.get(prompt_type.value if prompt_type else "query", "")
        else:
            text = "" if prompt_type == PromptType.document else given
        # An instruction of MTEB gets a colon at its end, in place of a full stop if it has one: LLM2Vec's published
        # models were trained so.
        return text.strip(".") + ":" if from_mteb and text and not text.endswith(":") else text


def evaluate(encoder: MtebEncoder, tasks: Sequence[AbsTask], out: Path) -> list[Score]:
    """Run the tasks that have no result in `out` yet, and return the main scores of all tasks.

    Raises:
        TrainingError: if the data of a task cannot be fetched.
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


def find_tasks(names: Sequence[str]) -> list[AbsTask]:
    """Find MTEB tasks by name. Raises `TrainingError` for an unknown name."""
    try:
        return [mteb.get_task(name) for name in names]
    except KeyError as error:
        raise TrainingError(f"MTEB has no such task: {error.args[0]}") from error


def read_instructions(file: Path | None) -> Instructions:
    """Read a JSON object that maps tasks to instructions or {"query": …, "document": …}, as in the reference.

    Raises:
        TrainingError: if the file does not hold such an object.
    """
    if file is None:
        return {}
    try:
        instructions = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read: {error}") from error
    if not isinstance(instructions, dict):
        raise TrainingError(f"{file} must contain a JSON object that maps tasks to instructions")
    for task, value in instructions.items():
        texts = list(value.values()) if isinstance(value, dict) else [value]
        if not all(isinstance(text, str) for text in texts) or (
            isinstance(value, dict) and not value.keys() <= {"query", "document"}
        ):
            raise TrainingError(f'{file}: {task} must be an instruction, or {{"query": …, "document": …}}')
    return instructions
