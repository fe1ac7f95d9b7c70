"""Small training data and models for the tests of the recipe."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch

from l2v.training.config_file import CONFIGS
from tests import tiny

NOUNS = ["cat", "dog", "bird", "fish", "horse", "mouse", "cow", "sheep", "goat", "duck"]
VERBS = ["sees", "likes", "hears", "finds", "draws"]
# Two processes, without and with FSDP.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
SHARDED = [*LAUNCH, "--config_file", str(CONFIGS / "fsdp.yaml"), "-m", "tests.training.sharded"]


def check_only_the_adapter_learns(model: torch.nn.Module) -> None:
    """Check the gradients of the first step, in which those of lora_A are still zero."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
        elif "lora_A" not in name:
            assert parameter.grad is None, name


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"the {rng.choice(NOUNS)} {rng.choice(VERBS)} the {rng.choice(NOUNS)} number {i}" for i in range(count)]


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text files."""
    folder = tmp_path_factory.mktemp("texts")
    for number in range(20):
        (folder / f"{number}.txt").write_text("\n".join(sentences(10, number)))
    return folder


@pytest.fixture(scope="session")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a sentence per line."""
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    path.write_text("\n".join(sentences(200)))
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of pairs with one negative and an instruction each."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"query": f"{i} {text}", "positive": f"{text} {i}", "negatives": [f"{i + 1} no {text}"], "instruction": "Find:"}
        for i, text in enumerate(sentences(96))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder with small initial weights, as decoders usually have them."""
    return tiny.make_base(tmp_path_factory.mktemp("small"), initializer_range=0.02, hidden_size=64, head_dim=16)
