"""The contrastive stages: their losses, compared with an independent computation, and what models learn from them."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from l2v.models import Encoder, Input, load
from l2v.training import contrastive, data
from l2v.training.collator import InputCollator
from l2v.training.errors import TrainingError
from l2v.training.recipes import Simcse, Supervised
from tests.bulk.shell import call
from tests.training.conftest import LAUNCH, SHARDED, check_only_the_adapter_learns, sentences

ROOT = Path(__file__).parents[2]


def supervised(base: Path, pairs: Sequence[Path], out: Path, **more: object) -> Supervised:
    settings = {"model": str(base), "data": tuple(map(str, pairs)), "out": out, "dtype": "float32", "device": "cpu"}
    settings |= {"batch_size": 16, "steps": 2, "warmup_steps": 0, "lora_dropout": 0.0}
    return Supervised(**(settings | {"save_steps": 1000, "log_steps": 1} | more))


def simcse(base: Path, lines: Path, out: Path, **more: object) -> Simcse:
    settings = {"model": str(base), "data": (str(lines),), "out": out, "dtype": "float32", "device": "cpu"}
    return Simcse(**(settings | {"batch_size": 16, "steps": 2, "save_steps": 1000} | more))


def batch_of(trainer: contrastive.ContrastiveTrainer) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = next(iter(trainer.get_train_dataloader()))
    return batch


def unit(encoder: Encoder, inputs: Sequence[Input]) -> np.ndarray:
    vectors = encoder.encode(inputs).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def info_nce(queries: np.ndarray, documents: np.ndarray, scale: float) -> float:
    """The loss in NumPy: document i is the positive of query i, all others are negatives."""
    scores = scale * queries @ documents.T
    rows = np.arange(len(queries))
    return float((np.log(np.exp(scores).sum(1)) - scores[rows, rows]).mean())


def test_the_loss_is_info_nce_of_the_served_encoders_vectors(base: Path, pairs: Path, tmp_path: Path) -> None:
    trainer = contrastive.build(supervised(base, [pairs], tmp_path / "out", scale=20.0))
    rows = [trainer.train_dataset[i] for i in range(16)]
    served = load(str(base), dtype="float32")
    queries = unit(served, [Input(row["query"], "Find:") for row in rows])
    # The task is not symmetric: only queries have the instruction.
    documents = [[Input(row["positive"]) for row in rows], [Input(row["negatives"][0]) for row in rows]]
    expected = info_nce(queries, np.concatenate([unit(served, column) for column in documents]), 20.0)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    assert abs(loss.item() - expected) < 1e-5


def test_only_the_adapter_gets_gradients(base: Path, pairs: Path, tmp_path: Path) -> None:
    trainer = contrastive.build(supervised(base, [pairs], tmp_path / "out"))
    trainer.compute_loss(trainer.model, batch_of(trainer)).backward()
    check_only_the_adapter_learns(trainer.model)


def test_the_gradient_cache_changes_nothing(base: Path, pairs: Path, tmp_path: Path) -> None:
    gradients = []
    for size in (0, 4):
        trainer = contrastive.build(supervised(base, [pairs], tmp_path / str(size), micro_batch=size))
        loss = trainer.compute_loss(trainer.model, batch_of(trainer))
        loss.backward()
        gradients.append([p.grad.clone() for p in trainer.model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_an_instruction_that_leaves_no_room_is_named(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": f"q {i}", "positive": "p", "negatives": ["n"], "instruction": "i" * i} for i in range(96)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TrainingError, match=r"pairs\.jsonl, line 63: instruction leaves no room"):
        contrastive.build(supervised(base, [path], tmp_path / "out", max_length=64))


def test_a_symmetric_task_has_its_instruction_on_queries_and_documents() -> None:
    row = {"query": "q", "positive": "p", "negatives": ["n", "m"], "instruction": "Same?", "symmetric": True}
    assert data.pair_inputs(row, 1) == [Input("q", "Same?"), Input("p", "Same?"), Input("n", "Same?")]
    assert data.pair_inputs(row | {"symmetric": False}, 0) == [Input("q", "Same?"), Input("p")]


def test_a_batch_comes_from_one_dataset(base: Path, pairs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    rows = [{"query": f"zz {i}", "positive": f"zz yes {i}", "negatives": [f"zz no {i}"]} for i in range(48)]
    other.write_text("\n".join(map(json.dumps, rows)))
    trainer = contrastive.build(supervised(base, [pairs, other], tmp_path / "out", steps=20))
    kinds = set()
    for batch in trainer.get_train_dataloader():
        first = trainer.student.encoder.tokenization.tokenizer.decode_batch(batch["0_input_ids"].tolist())
        kinds.add(frozenset("zz" in text for text in first))
    assert kinds == {frozenset({True}), frozenset({False})}


def test_distillation_adds_the_distance_to_the_teacher_to_the_loss(base: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [{"query": f"q {i}", "positive": f"p {i}", "vectors": rng.normal(size=(2, 32)).tolist()} for i in range(32)]
    path = tmp_path / "taught.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    trainer = contrastive.build(supervised(base, [path], tmp_path / "out", hard_negatives=0, distillation=1.0))
    served = load(str(base), dtype="float32")
    vectors = np.stack([unit(served, [Input(row[name]) for row in rows[:16]]) for name in ("query", "positive")], 1)
    teacher = np.array([row["vectors"] for row in rows[:16]])
    cosines = (vectors * teacher).sum(-1) / np.linalg.norm(teacher, axis=-1)
    loss = trainer.compute_loss(trainer.model, trainer.data_collator([trainer.train_dataset[i] for i in range(16)]))
    assert abs(loss.item() - (1 - cosines.mean())) < 1e-5


@pytest.fixture
def graded(tmp_path: Path) -> Path:
    """A file of pairs with a score from 0 to 1; many texts repeat."""
    path = tmp_path / "graded.jsonl"
    rows = [{"query": f"some words {i}", "positive": f"words {i * 7 % 32}", "score": i % 6 / 5} for i in range(32)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_the_loss_of_scored_pairs_is_the_squared_error_of_the_cosine(base: Path, graded: Path, tmp_path: Path) -> None:
    trainer = contrastive.build(supervised(base, [graded], tmp_path / "out"))
    rows = [trainer.train_dataset[i] for i in range(16)]
    served = load(str(base), dtype="float32")
    queries, others = (unit(served, [Input(row[name]) for row in rows]) for name in ("query", "positive"))
    expected = ((queries * others).sum(1) - np.array([row["score"] for row in rows])) ** 2
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    assert abs(loss.item() - expected.mean()) < 1e-5


def test_scored_and_unscored_datasets_can_be_mixed(base: Path, pairs: Path, graded: Path, tmp_path: Path) -> None:
    """Each dataset has its own loss, and the model learns the scores."""
    out = tmp_path / "out"
    contrastive.build(supervised(base, [pairs, graded], out, steps=30, learning_rate=1e-2)).run()
    rows = [json.loads(line) for line in graded.read_text().splitlines()]

    def order(encoder: Encoder) -> float:
        queries, others = (unit(encoder, [Input(row[name]) for row in rows]) for name in ("query", "positive"))
        return float(np.corrcoef((queries * others).sum(1), [row["score"] for row in rows])[0, 1])

    before, after = (order(load(str(base), adapters, dtype="float32")) for adapters in ([], [str(out)]))
    assert after > before + 0.2


@pytest.mark.parametrize(
    ("row", "more", "reason"),
    [
        ({"score": "high"}, {}, "line 33: score must be a number"),
        ({"score": 3}, {}, "line 33: score must be a number from -1 to 1"),
        ({"score": True}, {}, "line 33: score must be a number"),
        ({}, {}, "line 33: either all rows of a dataset must have the field score, or none"),
        ({"score": 0.5}, {"micro_batch": 4}, "--micro-batch cannot be used with scores"),
    ],
)
def test_scores_that_cannot_be_used_are_named(
    base: Path, graded: Path, tmp_path: Path, row: dict[str, object], more: dict[str, object], reason: str
) -> None:
    with graded.open("a") as file:
        file.write("\n" + json.dumps({"query": "q", "positive": "p"} | row))
    with pytest.raises(TrainingError, match=reason):
        contrastive.build(supervised(base, [graded], tmp_path / "out", **more))


def uniformity(vectors: np.ndarray) -> float:
    """The log of the mean Gaussian potential over pairs: lower means more evenly spread (Wang and Isola, 2020)."""
    squared = 2 - 2 * vectors @ vectors.T
    return float(np.log(np.exp(-2 * squared[np.triu_indices(len(vectors), 1)]).mean()))


def test_simcse_spreads_vectors_and_keeps_similar_texts_together(lines: Path, tmp_path: Path) -> None:
    """Train on top of the built-in model's MNTP stage, which has not seen a contrastive loss."""
    demo = ROOT / "models/demo"
    out = tmp_path / "out"
    recipe = simcse(
        demo / "base", lines, out, adapters=(str(demo / "mntp"),), steps=40, batch_size=32, learning_rate=1e-3,
        lora_dropout=0.05,
    )  # fmt: skip
    contrastive.build(recipe).run()
    texts = [Input(text) for text in sentences(60, seed=9)]
    like = [Input(f"{text.text} .") for text in texts]
    before = load(str(demo / "base"), [str(demo / "mntp")], dtype="float32")
    after = load(str(demo / "base"), [str(demo / "mntp"), str(out)], dtype="float32")
    spread = [uniformity(unit(encoder, texts)) for encoder in (before, after)]
    close = [float((unit(encoder, texts) * unit(encoder, like)).sum(1).mean()) for encoder in (before, after)]
    print(spread, close)
    # The rows of 128 tokens in training do not limit the texts that are served.
    assert after.max_length == before.max_length == 512
    assert spread[1] < spread[0] - 0.1
    assert close[1] > 0.8


def test_two_processes_train_the_same_adapter_as_one(
    base: Path, pairs: Path, graded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vectors must be gathered with their gradients, or the adapters would differ. Tested with DDP and with FSDP.

    The loss of only one dataset gathers vectors, so both processes need the same dataset in each step.
    """
    data_file = tmp_path / "pairs.jsonl"
    data_file.write_text("\n".join(pairs.read_text().splitlines()[:40]))
    flags = ["--model", base, "--data", f"{data_file},{graded}", "--dtype", "float32", "--device", "cpu"]
    flags += ["--batch-size", 16, "--steps", 6, "--warmup-steps", 0, "--log-steps", 1]
    flags += ["--lora-dropout", 0, "--learning-rate", "1e-2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    assert call(capsys, "train", "supervised", tmp_path / "one", *flags).status == 0
    runs = {"one": load(str(base), [str(tmp_path / "one")], dtype="float32")}
    for name, launch in {
        "two": [
            *(*LAUNCH, "--cpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
            *("-m", "l2v.app.cli"),
        ],
        "sharded": SHARDED,
    }.items():
        out = tmp_path / name
        command = [*launch, "train", "supervised", out, *flags]
        done = subprocess.run(
            list(map(str, command)), check=False, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("wrote ") == 1
        runs[name] = load(str(base), [str(out)], dtype="float32")
    vectors = [unit(encoder, [Input("the cat sees the dog"), Input("rain")]) for encoder in runs.values()]
    untrained = unit(load(str(base), dtype="float32"), [Input("the cat sees the dog"), Input("rain")])
    assert np.abs(vectors[0] - untrained).max() > 1e-2
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-4
    assert np.abs(vectors[0] - vectors[2]).max() < 1e-4


def test_duplicate_rows_do_not_reduce_the_number_of_steps(base: Path, tmp_path: Path) -> None:
    """An epoch without duplicates has fewer batches than its rows suggest, but the run has all its steps."""
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"text {i}" for i in [*range(20), *[0] * 60]))
    recipe = simcse(base, path, tmp_path / "out", batch_size=16, steps=7, log_steps=1)
    contrastive.build(recipe).run()
    assert len(json.loads((recipe.out / "run.json").read_text())["losses"]) == 7
    path.write_text("\n".join(f"text {i % 10}" for i in range(80)))
    with pytest.raises(TrainingError, match="no batch of 16 rows can be drawn without duplicates"):
        contrastive.build(recipe.model_copy(update={"out": tmp_path / "none"})).run()


def test_a_row_without_negatives_is_named(base: Path, pairs: Path, tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text(pairs.read_text() + '\n\n{"query": "q", "positive": "p"}\n')
    with pytest.raises(TrainingError, match=r"more\.jsonl, line 98: the row has no negatives"):
        contrastive.build(supervised(base, [path], tmp_path / "out"))
    rows = [{"query": f"q{i}", "positive": "p", "vectors": [[0.1, 0.2]] * 2} for i in range(16)]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TrainingError, match=r"more\.jsonl: the teacher's vectors have 2 dimensions, but"):
        contrastive.build(supervised(base, [path], tmp_path / "out", hard_negatives=0, distillation=1.0))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"hard_negatives": 0, "batch_size": 97}, "too few for one batch of 97"),
        ({"distillation": 0.5}, "no teacher's vectors"),
        ({"lora_targets": ("query_proj",)}, "no module query_proj"),
        ({"batch_size": 10_000_000, "micro_batch": 0}, "GiB of memory"),
    ],
)
def test_an_impossible_run_does_not_start(
    base: Path, pairs: Path, tmp_path: Path, more: dict[str, object], reason: str
) -> None:
    with pytest.raises(TrainingError, match=reason):
        contrastive.build(supervised(base, [pairs], tmp_path / "out", **more))


def test_hard_negatives_do_not_repeat_in_a_batch(base: Path, tmp_path: Path) -> None:
    """A negative that is the positive of another row, or its negative, would count twice or against its own query."""
    rows = [
        {"query": f"q{i}", "positive": f"p{i}", "negatives": [f"p{i ^ 1}" if i < 16 else f"n{i % 4}", f"unused {i}"]}
        for i in range(32)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    trainer = contrastive.build(supervised(base, [path], tmp_path / "out", batch_size=4, steps=12))
    batches = list(trainer.get_batch_sampler(trainer.train_dataset, 4, True, InputCollator.valid_label_columns))
    assert len(batches) == 12
    for batch in batches:
        texts = [text for i in batch for text in (rows[i]["query"], rows[i]["positive"], rows[i]["negatives"][0])]
        assert len(set(texts)) == 12
