"""The model card of an adapter: settings, data, library versions and loss curve."""

import json
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import yaml
from matplotlib.figure import Figure

from l2v.training.recipes import Recipe
from l2v.training.student import Student

_PACKAGES = ("l2v", "torch", "transformers", "peft", "sentence-transformers", "accelerate", "datasets")
# `owner/name`, the form of ids on the Hub.
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
Losses = list[tuple[int, float]]


def write(recipe: Recipe, student: Student, losses: Losses, data: Mapping[str, str], folder: Path) -> None:
    """Write `run.json`, `loss.png` and `README.md` to a folder. `data` maps each source to its hash."""
    settings = recipe.to_dict()
    stage = type(recipe).__name__.lower()
    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    run = {"stage": stage, "recipe": settings, "data": data, "versions": versions, "losses": losses}
    (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    plot(losses, folder / "loss.png")
    rows = "\n".join(f"| {name} | `{value}` |" for name, value in settings.items() if value not in (None, "", []))
    hashes = "\n".join(f"- `{source}`, SHA-256 {sha}" for source, sha in data.items())
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    base = student.encoder.base
    front = {
        "base_model": base,
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "feature-extraction",
        "tags": ["llm2vec", "lora", stage],
    }
    if not _HUB_ID.fullmatch(base) or Path(base).exists():  # the Hub accepts only Hub ids as `base_model`
        del front["base_model"], front["base_model_relation"]
    (folder / "README.md").write_text(
        f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {recipe.out.name}

A LoRA adapter of the base model `{base}`, trained on `{student.parent}` with `l2v train {stage}`. To serve it:

    {recipe.serve_command}

![Training loss by step](loss.png)

| setting | value |
|---|---|
{rows}

Training data:

{hashes}

Trained with {libraries}. `run.json` holds the settings, data hashes, versions and losses in machine-readable form.
""",
        encoding="utf-8",
    )


def plot(losses: Losses, file: Path) -> None:
    """Plot the loss by step as a PNG."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([step for step, _ in losses], [loss for _, loss in losses])
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
