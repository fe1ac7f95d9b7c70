"""MNTP: its loss, compared with an independent computation, and what models learn from it."""

import random
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from l2v.models.sources import Source
from l2v.training import mntp
from l2v.training.errors import TrainingError
from l2v.training.folder import ADAPTER
from l2v.training.memory import estimate
from l2v.training.recipes import Mntp
from tests import tiny
from tests.training.conftest import check_only_the_adapter_learns

ROOT = Path(__file__).parents[2]


def recipe(small: Path, texts: Path, out: Path, **more: object) -> Mntp:
    settings = {"model": str(small), "data": (str(texts),), "out": out, "dtype": "float32", "device": "cpu"}
    settings |= {"max_length": 64, "batch_size": 8, "steps": 2, "lora_dropout": 0.0, "save_steps": 1000}
    return Mntp(**(settings | more))


def first_batch(trainer: mntp.MntpTrainer) -> mntp.MaskedBatch:
    torch.manual_seed(3)
    return trainer.masked(next(iter(trainer.get_train_dataloader())))


def test_the_loss_is_that_of_the_plain_decoder_under_a_full_mask(small: Path, texts: Path, tmp_path: Path) -> None:
    """The reference is transformers' eager attention on one sequence at a time, with the logits at i - 1."""
    trainer = mntp.build(recipe(small, texts, tmp_path / "out"))
    masked = first_batch(trainer)
    reference = AutoModelForCausalLM.from_pretrained(small, attn_implementation="eager").eval()
    bounds = masked.batch.cu_seqlens.tolist()
    assert len(bounds) > 9, "some rows hold the end of one text and the start of another"
    rows = []
    for start, end in pairwise(bounds):
        ids = masked.batch.input_ids[:, start:end]
        with torch.no_grad():
            rows.append(reference(ids, attention_mask=torch.zeros(1, 1, end - start, end - start)).logits[0])
    expected = cross_entropy(torch.cat(rows)[masked.positions], masked.labels)
    loss, _ = trainer.loss_of(trainer.model, masked)
    assert abs(loss.item() - expected.item()) < 1e-5


def test_no_token_is_predicted_from_another_text(small: Path, texts: Path, tmp_path: Path) -> None:
    masked = first_batch(mntp.build(recipe(small, texts, tmp_path / "out")))
    starts = set(masked.batch.cu_seqlens.tolist())
    assert not {int(position) + 1 for position in masked.positions} & starts


def test_only_the_adapter_gets_gradients(small: Path, texts: Path, tmp_path: Path) -> None:
    trainer = mntp.build(recipe(small, texts, tmp_path / "out"))
    loss, _ = trainer.loss_of(trainer.model, first_batch(trainer))
    loss.backward()
    check_only_the_adapter_learns(trainer.model)


def test_accumulated_micro_batches_give_the_mean(small: Path, texts: Path, tmp_path: Path) -> None:
    """The trainer must divide by the number of micro batches, though the model's forward accepts `**kwargs`."""
    whole, parts = (
        mntp.build(recipe(small, texts, tmp_path / f"{n}", micro_batch=n, batch_size=8, steps=1, log_steps=1))
        for n in (8, 2)
    )
    for trainer in (whole, parts):
        trainer.run()
    one, other = (trainer.state.log_history[0] for trainer in (whole, parts))
    assert abs(one["loss"] - other["loss"]) < 0.3
    assert abs(one["grad_norm"] - other["grad_norm"]) < 0.5 * one["grad_norm"]


def test_schedule_steps_stretches_the_learning_rate_schedule(small: Path, texts: Path, tmp_path: Path) -> None:
    """The reference schedules three epochs too, and stops after a thousand steps."""
    trainer = mntp.build(recipe(small, texts, tmp_path / "out", steps=2, schedule_steps=8, log_steps=1))
    trainer.run()
    assert trainer.lr_scheduler.get_last_lr()[0] == pytest.approx(trainer.args.learning_rate * 6 / 8)
    ready = Mntp(out=tmp_path / "ready", config=Path("mntp/sheared-llama-1.3b"))
    assert ready.schedule_steps > 20 * ready.steps


@pytest.mark.parametrize(
    ("steps", "rate", "reason"), [(4, 1e30, "the loss is nan at step 2"), (1, 1e39, "weights have become NaN or inf")]
)
def test_a_run_that_diverges_leaves_no_adapter(
    small: Path, texts: Path, tmp_path: Path, steps: int, rate: float, reason: str
) -> None:
    diverging = recipe(small, texts, tmp_path / "out", steps=steps, learning_rate=rate, log_steps=1, save_steps=1)
    with pytest.raises(TrainingError, match=f"{reason}.*: start over in another folder"):
        mntp.build(diverging).run()
    assert not (diverging.out / ADAPTER).exists()
    assert not (diverging.out / "checkpoints" / "checkpoint-2").exists()


def test_scaled_logits_and_float16_are_refused(small: Path, texts: Path, tmp_path: Path) -> None:
    scaled = tiny.make_base(tmp_path / "granite", "granite", logits_scaling=8.0)
    with pytest.raises(TrainingError, match=r"changes its logits \(logits_scaling\)"):
        mntp.build(recipe(scaled, texts, tmp_path / "out"))
    with pytest.raises(ValueError, match="float16 loses small gradients"):
        recipe(small, texts, tmp_path / "out", dtype="float16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_refused(small: Path, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--device cuda: torch finds no GPU"):
        mntp.build(recipe(small, texts, tmp_path / "out", device="cuda"))


def accuracy(trainer: mntp.MntpTrainer) -> float:
    """The fraction of masked tokens that are predicted, with the masks of training."""
    torch.manual_seed(7)
    right = total = 0
    trainer.model.eval()
    with torch.no_grad():
        for inputs in trainer.get_train_dataloader():
            masked = trainer.masked(inputs)
            _, logits = trainer.loss_of(trainer.model, masked)
            right += int((logits.argmax(-1) == masked.labels).sum())
            total += len(masked.labels)
    return right / total


def unigram(trainer: mntp.MntpTrainer) -> float:
    """The accuracy of always predicting the most common token."""
    counts = Counter(i for row in trainer.train_dataset["input_ids"] for i in row)
    return counts.most_common(1)[0][1] / counts.total()


def test_a_decoder_learns_mntp_and_does_worse_with_causal_attention(tmp_path: Path) -> None:
    """Train the built-in model's base, which has learnt English causally, on pairs of words in random order.

    The first word predicts the second; only bidirectional attention can predict the first from the second.
    """
    pairs = ["cat dog", "sun moon", "red blue", "king queen", "hot cold", "day night", "old new", "land sea"]
    pairs.append("war peace")
    texts, accuracies = tmp_path / "texts", []
    texts.mkdir()
    rng = random.Random(0)
    for number in range(40):
        (texts / f"{number}.txt").write_text(" ".join(rng.choices(pairs, k=120)))
    for bidirectional in (True, False):
        trainer = mntp.build(
            recipe(
                ROOT / "models/demo/base", texts, tmp_path / str(bidirectional), steps=40, learning_rate=4e-3,
                lora_r=32, batch_size=8, warmup_steps=5, bidirectional=bidirectional,
            )
        )  # fmt: skip
        if bidirectional:
            accuracies += [accuracy(trainer), unigram(trainer)]
        trainer.run()
        accuracies.append(accuracy(trainer))
    before, most_common, after, causal = accuracies
    assert after > max(before, most_common, causal) + 0.2


def test_the_head_is_found_in_pytorchs_own_files(small: Path, texts: Path, tmp_path: Path) -> None:
    """Many published bases have no safetensors."""
    old = tmp_path / "old"
    shutil.copytree(small, old)
    weights = load_file(old / "model.safetensors")
    torch.save(weights, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    recipes = [recipe(base, texts, tmp_path / f"out{base.name}") for base in (small, old)]
    sizes = {estimate(each, Source(each.model, Path(each.model)), 1, False) for each in recipes}
    assert len(sizes) == 1
    heads = [mntp.build(each).student.head() for each in recipes]
    torch.testing.assert_close(*heads)


def test_the_causal_ablation_uses_causal_attention(small: Path, texts: Path, tmp_path: Path) -> None:
    """With `--no-bidirectional`, the loss is that of the plain decoder's causal attention."""
    trainer = mntp.build(recipe(small, texts, tmp_path / "out", bidirectional=False))
    masked = first_batch(trainer)
    reference = AutoModelForCausalLM.from_pretrained(small, attn_implementation="eager").eval()
    with torch.no_grad():
        rows = [
            reference(masked.batch.input_ids[:, start:end]).logits[0]
            for start, end in pairwise(masked.batch.cu_seqlens.tolist())
        ]
    expected = cross_entropy(torch.cat(rows)[masked.positions], masked.labels)
    loss, _ = trainer.loss_of(trainer.model, masked)
    assert abs(loss.item() - expected.item()) < 1e-5
