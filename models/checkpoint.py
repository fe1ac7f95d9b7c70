"""Reads the weight files of a folder: first the headers, then each tensor when it is needed."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import safe_open

from l2v.models.errors import SourceError, first_line
from l2v.models.sources import BASE_WEIGHTS, Source

_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors in files, read lazily.

    Attributes:
        tensors: the tensors by name. Each is a loaded tensor, or a slice of a file that is read when it is indexed.
        shapes: the shape of each tensor.
        dtypes: the dtype of each tensor, named as in safetensors: F32, BF16, F8_E4M3, I32 …
    """

    tensors: dict[str, Any] = field(repr=False)
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    @classmethod
    def of(cls, source: Source) -> "Checkpoint":
        """Opens the weights of a base.

        Raises:
            SourceError: if there are no weights, or if a file is missing or cannot be read.
        """
        name = next((name for name in BASE_WEIGHTS if (source.folder / name).is_file()), None)
        if name is None:
            raise SourceError(f"{source.name} has no weights: {_found(source)}")
        return cls.read(source, _shards(source, name) if name.endswith(".index.json") else [name])

    @classmethod
    def read(cls, source: Source, names: Collection[str]) -> "Checkpoint":
        """Opens weight files of a source. Raises `SourceError` if a file is unreadable or two hold the same tensor."""
        checkpoint = cls({}, {}, {})
        for name in names:
            path = source.folder / name
            _check_file(source, path)
            try:
                tensors = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
            except UnpicklingError as error:
                raise SourceError(_unpickling(source, name, error)) from error
            except Exception as error:  # torch's unpickler raises errors of any class
                raise SourceError(
                    f"{name} of {source.name} is damaged or incomplete ({first_line(error)}): download it again"
                ) from error
            checkpoint._add(source, name, tensors)
        return checkpoint

    def _add(self, source: Source, file: str, tensors: Mapping[str, Any]) -> None:
        for name, tensor in tensors.items():
            if name in self.tensors:
                raise SourceError(
                    f"{name} is in two weight files of {source.name}, one of them {file}: remove one file"
                )
            if not isinstance(tensor, torch.Tensor) and not hasattr(tensor, "get_shape"):
                raise SourceError(
                    f"{file} of {source.name} is not a file of weights: its entry {name!r} is not a tensor; save the "
                    "model with save_pretrained"
                )
            self.tensors[name] = tensor
            self.shapes[name] = tuple(tensor.shape if isinstance(tensor, torch.Tensor) else tensor.get_shape())
            self.dtypes[name] = _dtype(tensor)

    def without(self, names: Collection[str]) -> "Checkpoint":
        """A checkpoint without these tensors."""
        kept = [name for name in self.tensors if name not in names]
        return Checkpoint(*({name: part[name] for name in kept} for part in (self.tensors, self.shapes, self.dtypes)))  # type: ignore[arg-type]

    def tensor(self, name: str) -> torch.Tensor:
        """Reads one tensor."""
        return cast(torch.Tensor, self.tensors[name][...])


def _safetensors(path: Path) -> dict[str, Any]:
    file: Any = safe_open(path, framework="pt")
    return {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping


def _pickle(path: Path) -> Mapping[str, Any]:
    """Reads a .bin file; code in it is never run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        # torch cannot map files from before release 1.6.
        content = torch.load(path, map_location="cpu", weights_only=True)
    return content if isinstance(content, Mapping) else {"": content}


def _dtype(tensor: Any) -> str:
    if not isinstance(tensor, torch.Tensor):
        return str(tensor.get_dtype())
    name = str(tensor.dtype).removeprefix("torch.")
    for long, short in (("bfloat", "BF"), ("float8_", "F8_"), ("float", "F"), ("uint", "U"), ("int", "I")):
        if name.startswith(long):
            return short + name.removeprefix(long).upper()
    return name.upper()


def _shards(source: Source, index: str) -> list[str]:
    """The files that an index names."""
    named = source.read(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(file, str) for file in named.values()):
        raise SourceError(f"{index} of {source.name} names no files (weight_map): download it again")
    files = sorted(set(named.values()))
    for file in files:
        if Path(file).name != file:
            raise SourceError(f"{index} of {source.name} names {file}, which is not a file of its folder")
        if not (source.folder / file).is_file():
            raise SourceError(
                f"{source.name} is incomplete: {file}, which {index} names, is missing; download it again"
            )
    return files


def _check_file(source: Source, path: Path) -> None:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise SourceError(f"{path.name} of {source.name} cannot be read ({error.strerror})") from error
    if empty:
        raise SourceError(f"{path.name} of {source.name} is empty: download it again")


def _unpickling(source: Source, name: str, error: UnpicklingError) -> str:
    if "GLOBAL" in str(error) or "global" in str(error):
        return f"{name} of {source.name} contains code, which is never loaded: save the weights as safetensors"
    return f"{name} of {source.name} is damaged ({first_line(error)}): download it again"


def _found(source: Source) -> str:
    """Describes what a folder without readable weights holds, and what to do about it."""
    files = sorted(path.name for path in source.folder.iterdir() if path.suffix in _WEIGHTS)
    # GGUF files are not downloaded.
    if any(name.lower().endswith("gguf") for name in (*files, source.name)):
        return "GGUF files are quantized and cannot be served; serve the original full-precision model instead"
    if any("-of-" in name for name in files):
        return f"it holds {_some(files)} but no model.safetensors.index.json; download it again"
    if files:
        return (
            f"it holds {_some(files)} but no model.safetensors; use a repository in transformers' format, or "
            "convert the model with save_pretrained"
        )
    return "it holds neither model.safetensors nor pytorch_model.bin; use a repository or folder that has weights"


def _some(files: list[str]) -> str:
    return ", ".join(files[:2]) + (f" and {len(files) - 2} more" if len(files) > 2 else "")
