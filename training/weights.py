"""The weight files of a checkpoint, read without loading the model."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open


def read_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Iterate over name and tensor of each weight, from safetensors or else from PyTorch's own files.

    Files are memory-mapped, so only the data that is used gets read.
    """
    files = sorted(folder.glob("model*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                yield name, weights.get_tensor(name)
    for file in [] if files else sorted(folder.glob("pytorch_model*.bin")):
        # Files written before PyTorch 1.6 are not zip archives and cannot be mapped.
        mapped = zipfile.is_zipfile(file)
        yield from torch.load(file, map_location="cpu", mmap=mapped, weights_only=True).items()
