"""The record of a run: what it was told, what it read, with which versions, and how its loss fell."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

from matplotlib.figure import Figure

from training.recipes import Recipe
from training.student import Student

_PACKAGES = ("l2v", "torch", "transformers", "peft", "sentence-transformers", "accelerate", "datasets")
Losses = list[tuple[int, float]]


def write(recipe: Recipe, student: Student, losses: Losses) -> None:
    """Puts `run.json`, `loss.png` and `README.md` into the run's folder."""
    told = json.loads(recipe.model_dump_json(exclude={"out", "config"}))
    stage = type(recipe).__name__.lower()
    data = {source: digest(Path(source)) for source in recipe.data}
    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    run = {"stage": stage, "recipe": told, "data": data, "versions": versions, "losses": losses}
    (recipe.out / "recipe.json").unlink(missing_ok=True)
    (recipe.out / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    plot(losses, recipe.out / "loss.png")
    settings = "\n".join(f"| {name} | `{value}` |" for name, value in told.items() if value not in (None, "", []))
    hashes = "\n".join(f"- `{source}`, SHA-256 {sha or 'not taken'}" for source, sha in data.items())
    used = ", ".join(f"{name} {number}" for name, number in versions.items())
    (recipe.out / "README.md").write_text(
        f"""# {recipe.out.name}

A LoRA adapter for `{student.behind}`, made by `l2v train {stage}`. It is merged behind that:

    {recipe.serving}

![The loss by step](loss.png)

| setting | value |
|---|---|
{settings}

Learnt from:

{hashes}

With {used}. `run.json` holds all this for programs.
""",
        encoding="utf-8",
    )


def digest(source: Path) -> str | None:
    """SHA-256 of a file, or of a folder's files with their names; None for what is not on this machine."""
    if not source.exists():
        return None
    total = hashlib.sha256()
    for file in [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file()):
        total.update(str(file.relative_to(source)).encode())
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def plot(losses: Losses, file: Path) -> None:
    """The loss by step as a PNG."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([step for step, _ in losses], [loss for _, loss in losses])
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
