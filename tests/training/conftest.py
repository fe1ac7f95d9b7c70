"""Small data for the recipe's tests."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch

from l2v.training.recipes import CONFIGS
from tests import tiny

NOUNS = ["cat", "dog", "bird", "fish", "horse", "mouse", "cow", "sheep", "goat", "duck"]
VERBS = ["sees", "likes", "hears", "finds", "draws"]
# Two processes; the last one shares out the weights too.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--main_process_port", "0"]
SHARDED = [*LAUNCH, "--config_file", str(CONFIGS / "fsdp.yaml"), "-m", "tests.training.sharded"]


def check_only_the_adapter_learns(model: torch.nn.Module) -> None:
    """By the gradients of one step, in which the first halves of the adapter have none yet."""
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
    """A file of a sentence a line."""
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    path.write_text("\n".join(sentences(200)))
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with a negative and an instruction."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"query": f"{i} {text}", "positive": f"{text} {i}", "negatives": [f"{i + 1} no {text}"], "instruction": "Find:"}
        for i, text in enumerate(sentences(96))
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder that starts as decoders do, with small weights."""
    return tiny.make_base(tmp_path_factory.mktemp("small"), initializer_range=0.02, hidden_size=64, head_dim=16)
