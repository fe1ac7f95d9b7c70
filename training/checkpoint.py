"""A checkpoint's files, looked into without loading the model."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open


def tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of each weight, of safetensors or, where there are none, of PyTorch's own files.

    They are mapped, so that only what is used of them is read.
    """
    files = sorted(folder.glob("model*.safetensors"))
    for file in files:
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - no mapping
                yield name, weights.get_tensor(name)
    for file in [] if files else sorted(folder.glob("pytorch_model*.bin")):
        # Those of before PyTorch 1.6 are no archives and cannot be mapped.
        mapped = zipfile.is_zipfile(file)
        yield from torch.load(file, map_location="cpu", mmap=mapped, weights_only=True).items()
