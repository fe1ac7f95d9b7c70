"""`l2v evaluate`, on a local task, since MTEB's data are on the Hub."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.types import PromptType
from scipy.stats import spearmanr

from l2v.app.bulk.embedders import embed_inputs
from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.commands.evaluate import Evaluate
from l2v.models import Encoder, Encoding, Input, load
from l2v.training.errors import TrainingError
from l2v.training.evaluation import MtebEncoder, evaluate, find_tasks, read_instructions
from tests.bulk.shell import call
from tests.serving import ServerProcess

ROWS = [
    ("a cat sits on a mat", "a cat is on a mat", 4.8),
    ("a cat sits on a mat", "stocks fell sharply on Monday", 0.1),
    ("the car is fast", "the automobile is quick", 4.5),
    ("he plays the guitar", "she cooks a meal", 0.8),
    ("rivers flow to the sea", "a river runs into the ocean", 4.2),
    ("open the file", "close the window", 1.5),
]


class Small(AbsTaskSTS):
    """A task of six pairs."""

    metadata = TaskMetadata(
        name="SmallSTS", description="Six pairs.", dataset={"path": "nobody/none", "revision": "none"}, type="STS",
        category="t2t", eval_splits=["test"], eval_langs=["eng-Latn"], main_score="cosine_spearman",
        date=("2024-01-01", "2024-12-31"), domains=["Written"], task_subtypes=[], license="mit",
        annotations_creators="derived", dialect=[], sample_creation="created", bibtex_citation="", reference=None,
    )  # fmt: skip

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        columns = dict(zip(("sentence1", "sentence2", "score"), map(list, zip(*ROWS, strict=True)), strict=True))
        self.dataset = {"test": Dataset.from_dict(columns)}
        self.data_loaded = True


def expected(encoder: Encoder, instruction: str) -> float:
    a, b = (encoder.encode([Input(row[column], instruction) for row in ROWS]).astype(np.float64) for column in (0, 1))
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(spearmanr(cosines, [row[2] for row in ROWS])[0])


@pytest.fixture(scope="module")
def built_in() -> Encoder:
    return load("demo")


def test_the_score_is_that_of_the_encoders_vectors(built_in: Encoder, tmp_path: Path) -> None:
    """The task is symmetric, so both texts of a pair have the instruction."""
    instruction = "Retrieve semantically similar text."
    model = MtebEncoder("demo", built_in.encode, {"SmallSTS": instruction}, {})
    (score,) = evaluate(model, [Small()], tmp_path)
    assert score.score == pytest.approx(expected(built_in, instruction), abs=1e-5)
    assert (score.metric, score.instruction) == ("cosine_spearman", instruction)


def test_a_text_that_the_encoder_rejects_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def forward(encoder: Encoder, batch: list[Encoding]) -> Any:
        sizes.append(sum(map(len, batch)))
        raise torch.OutOfMemoryError("CUDA out of memory")

    command = Evaluate(tasks=("STSBenchmark",), max_batch_tokens=8)
    with command.open_embedder(EmbedOptions(normalize=False)) as embedder:
        with pytest.raises(CommandError, match="a text cannot be embedded: instruction leaves no room"):
            embed_inputs(embedder, [Input("a text", "long " * 600)])
        monkeypatch.setattr(Encoder, "forward", forward)
        with pytest.raises(CommandError, match="does not fit into memory: lower --max-batch-tokens"):
            embed_inputs(embedder, [Input("the cat")] * 9)
    assert max(sizes) <= 8


def test_a_service_has_the_score_of_its_encoder(demo: ServerProcess, tmp_path: Path) -> None:
    command = Evaluate(tasks=("STSBenchmark",), url=f"http://localhost:{demo.port}")
    with command.open_embedder(EmbedOptions(normalize=False)) as embedder:
        assert embedder.info["max_length"] == 512
        assert embedder.info["model"] == "demo"
        model = MtebEncoder("demo", partial(embed_inputs, embedder), {}, {})
        (remote,) = evaluate(model, [Small()], tmp_path / "remote")
    (local,) = evaluate(MtebEncoder("local", load("demo").encode, {}, {}), [Small()], tmp_path / "local")
    assert remote.score == pytest.approx(local.score, abs=1e-6)


def test_a_task_with_a_result_is_not_run_again(built_in: Encoder, tmp_path: Path) -> None:
    runs = []

    def encode(inputs: Any) -> Any:
        runs.append(len(inputs))
        return built_in.encode(inputs)

    model = MtebEncoder("demo", encode, {}, {})
    first = evaluate(model, [Small()], tmp_path)
    before = len(runs)
    assert evaluate(model, [Small()], tmp_path) == first
    assert len(runs) == before > 0
    # Vectors depend on the instruction and on the lengths.
    for instructions, settings in (({"SmallSTS": "Same?"}, {}), ({}, {"max_length": 8})):
        other = MtebEncoder("demo", encode, instructions, settings)
        before = len(runs)
        (score,) = evaluate(other, [Small()], tmp_path)
        assert len(runs) > before
        assert score.instruction == other.instruction(Small.metadata, PromptType.query)


@pytest.mark.parametrize(
    ("given", "prompt_type", "instruction"),
    [
        ("Find:", PromptType.query, "Find:"),
        ("Find:", PromptType.document, ""),
        ("Find:", None, "Find:"),
        ({"query": "Ask:", "document": "Say:"}, PromptType.document, "Say:"),
        ({"query": "Ask:"}, PromptType.document, ""),
    ],
)
def test_documents_do_not_get_the_queries_instruction(
    given: Any, prompt_type: PromptType | None, instruction: str
) -> None:
    model = MtebEncoder("x", lambda inputs: np.zeros((len(inputs), 1), np.float32), {"T": given}, {})
    assert model.instruction(SimpleNamespace(name="T", prompt=None), prompt_type) == instruction  # type: ignore[arg-type]


def test_mtebs_instruction_is_the_default() -> None:
    model = MtebEncoder("x", lambda inputs: np.zeros((len(inputs), 1), np.float32), {}, {})
    (task,) = find_tasks(["SciFact"])
    instruction = model.instruction(task.metadata, PromptType.query)
    assert instruction == "Given a scientific claim, retrieve documents that support or refute the claim:"
    assert model.instruction(task.metadata, PromptType.document) == ""


def test_errors_of_an_evaluation_name_the_cause(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="MTEB has no such task"):
        find_tasks(["NoSuchTask"])
    for content in ("[]", '{"T": 3}', '{"T": {"passage": "x"}}', "{"):
        file = tmp_path / "instructions.json"
        file.write_text(content)
        with pytest.raises(TrainingError, match=str(file)):
            read_instructions(file)
    ended = call(capsys, "evaluate", "SciFact", "--out", tmp_path / "out")
    assert "the data of SciFact cannot be fetched" in f"{ended.status} {ended.err}"


def test_own_pairs_and_triplets(built_in: Encoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, triplets = tmp_path / "pairs.csv", tmp_path / "triplets.jsonl"
    pairs.write_text("a,b,score\n" + "".join(f"{a},{b},{score}\n" for a, b, score in ROWS))
    rows = [{"query": "a cat", "positive": "a kitten", "negative": "a tax"}]
    rows += [{"query": "a cat", "positive": "a tax", "negatives": ["a kitten", "a dog"]}]
    triplets.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    flags = ["--columns", "query=a,positive=b", "--instruction", "Find:", "--json"]
    scores = json.loads(call(capsys, "evaluate", pairs, *flags).out)["scores"]
    a, b = (
        built_in.encode([Input(row[column], "Find:" if column == 0 else "") for row in ROWS]).astype(np.float64)
        for column in (0, 1)
    )
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    correlation = spearmanr(cosines, [row[2] for row in ROWS])[0]
    assert scores == [
        {"task": str(pairs), "metric": "spearman", "score": round(100 * correlation, 2), "instruction": "Find:"}
    ]
    (score,) = json.loads(call(capsys, "evaluate", triplets, "--output-dtype", "ubinary", "--json").out)["scores"]
    assert (score["metric"], score["score"]) == ("accuracy", 50.0)
    triplets.write_text('{"query": "a", "positive": "b"}\n')
    assert "line 1: a row needs either a score or negatives" in call(capsys, "evaluate", triplets).err
    assert "there is no such file" in call(capsys, "evaluate", tmp_path / "none.csv").err


def test_results_are_stored_as_json(built_in: Encoder, tmp_path: Path) -> None:
    evaluate(MtebEncoder("demo", built_in.encode, {}, {}), [Small()], tmp_path)
    (file,) = tmp_path.rglob("SmallSTS.json")
    assert json.loads(file.read_text())["task_name"] == "SmallSTS"
