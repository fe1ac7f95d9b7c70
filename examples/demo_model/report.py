"""The report in docs/demo-model.md: a table of scores, and plots of learning curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from transformers import TrainerCallback

from examples.demo_model import teacher
from examples.demo_model.machine import BFLOAT16
from examples.demo_model.scores import (
    Match,
    Tasks,
    adversarial_scores,
    adversarial_triplets,
    bm25,
    of_encoder,
    of_vectors,
    tfidf,
)
from examples.demo_model.stages import Steps, mntp_recipe, supervised_recipe
from l2v.models import load
from l2v.training import contrastive, mntp
from l2v.training.student import Student

PAGE = Path("docs/demo-model.md")
PICTURES = Path("docs/assets")
Curve = list[tuple[int, float]]


def write(data: Path, work: Path, out: Path, steps: int = 200) -> None:
    """Score the stages, train the short runs of the curves, and update the page and its plots.

    Args:
        data: see `corpus.read`.
        work: the folder of the stages, which also keeps the runs of the curves.
        out: the finished stack.
        steps: of each run of `sample_efficiency`.
    """
    tasks = Tasks(data)
    _write_part("scores", table(tasks, work, out))
    write_adversarial(out)
    plot(mntp_losses(work), "loss on masked tokens", PICTURES / "demo-causal.png")
    plot(sample_efficiency(tasks, work, steps), "Spearman on STS-B dev", PICTURES / "demo-steps.png")


def table(tasks: Tasks, work: Path, out: Path) -> str:
    """The scores of each stage, of word matching and of the teacher, as Markdown."""
    base, mntp_, simcse, supervised = (str(work / name) for name in ("base", "mntp", "simcse", "supervised"))
    matches = {
        "the base, causal": of_encoder(load(base), causal=True),
        "the base, bidirectional, untrained": of_encoder(load(base)),
        "+ MNTP": of_encoder(load(base, [mntp_])),
        "+ MNTP + SimCSE": of_encoder(load(base, [mntp_, simcse])),
        "+ MNTP + supervised, by the teacher": of_encoder(load(base, [mntp_, supervised])),
        "**+ MNTP + supervised, by a teacher and by people: the built-in model**": _finished(out),
        **_others(),
    }
    words, pages, triplets = (f"({len(part):,})" for part in (tasks.words, tasks.pages, tasks.triplets))
    lines = [
        f"| | STS-B dev | definition → word {words} | one-liner → manual page {pages} | triplets {triplets} |",
        "|---|---|---|---|---|",
    ]
    for name, match in matches.items():
        sts, word, page, triplet = tasks.scores(match).values()
        lines.append(f"| {name} | {sts:.3f} | {word:.3f} | {page:.3f} | {triplet:.0%} |")
        print(lines[-1])
    return "\n".join(lines)


def write_adversarial(out: Path) -> None:
    """Update the page's table of adversarial triplets."""
    _write_part("adversarial", adversarial_table(out))


def adversarial_table(out: Path) -> str:
    """The scores of the finished stack, of word matching and of the teacher on adversarial triplets, as Markdown."""
    triplets = adversarial_triplets()
    lines = [
        "| | " + " | ".join(f"{kind} ({len(triplets[kind])})" for kind in triplets) + " |",
        "|---" * (1 + len(triplets)) + "|",
    ]
    for name, match in {"**the built-in model**": _finished(out), **_others()}.items():
        lines.append(f"| {name} | " + " | ".join(f"{score:.0%}" for score in adversarial_scores(match).values()) + " |")
        print(lines[-1])
    return "\n".join(lines)


def _finished(out: Path) -> Match:
    return of_encoder(load(str(out / "base"), [str(out / name) for name in ("mntp", "contrastive")]))


def _others() -> dict[str, Match]:
    """Word matching, and the teacher."""
    model = teacher.load().float()
    return {
        "TF-IDF": tfidf,
        "BM25": bm25,
        "the teacher, all-MiniLM-L6-v2": of_vectors(lambda texts: model.encode(list(texts))),
    }


def _write_part(name: str, text: str) -> None:
    """Replace the part of the page between two comments."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}", encoding="utf-8")


def mntp_losses(work: Path) -> dict[str, Curve]:
    """The loss of MNTP by step, with bidirectional attention (as the stage was trained) and with causal attention."""
    causal = mntp_recipe(work, "curve-causal-mntp", Steps().mntp, bidirectional=False)
    if not (causal.out / "run.json").is_file():
        mntp.build(causal).run()
    runs = {"causal": causal.out, "bidirectional": work / "mntp"}
    return {name: json.loads((run / "run.json").read_text(encoding="utf-8"))["losses"] for name, run in runs.items()}


def sample_efficiency(tasks: Tasks, work: Path, steps: int) -> dict[str, Curve]:
    """STS-B dev by step of the supervised stage, with and without the recipe's first two steps (paper, figure 3)."""
    variants: dict[str, dict[str, Any]] = {
        "causal": {"bidirectional": False, "adapters": ()},
        "bidirectional": {"adapters": ()},
        "bidirectional, after MNTP": {},
    }
    curves = {}
    for number, (name, settings) in enumerate(variants.items()):
        recipe = supervised_recipe(work, f"curve-{number}", steps, **settings)
        file = recipe.out / "curve.json"
        if not file.is_file():
            trainer = contrastive.build(recipe)
            callback = _ScoreCallback(tasks, trainer.student)
            trainer.add_callback(callback)
            trainer.run()
            file.write_text(json.dumps(callback.curve), encoding="utf-8")
        curves[name] = json.loads(file.read_text(encoding="utf-8"))
    return curves


class _ScoreCallback(TrainerCallback):
    """Scores the student eight times during training."""

    def __init__(self, tasks: Tasks, student: Student) -> None:
        self.tasks, self.student = tasks, student
        self.curve: Curve = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._score(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % max(1, state.max_steps // 8) == 0:
            self._score(state.global_step)

    def _score(self, step: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
            match = of_encoder(self.student.encoder, causal=self.student.causal)
            self.curve.append((step, self.tasks.sts_score(match)))


def plot(curves: Mapping[str, Curve], label: str, file: Path) -> None:
    """Plot curves by step as a PNG."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name)
    axes.set(xlabel="step", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)
