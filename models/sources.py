"""Sources: a Hub id or a folder, resolved to a local folder of one of three kinds."""

import json
import logging
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from huggingface_hub import get_safetensors_metadata, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from l2v.models.errors import SourceError, first_line
from l2v.models.quantization import checkpoints

logger = logging.getLogger(__name__)

# Configuration and tokenizer files. Weights are downloaded as safetensors if possible; code is never downloaded.
_SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_IGNORED = ["*/*", "consolidated*", "*.py"]
# Names of a base's weight files. The first one that exists is read, as in transformers.
BASE_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_MAX_NAME = 1000
# The beginning and the maximum size of the pointer that a clone without Git LFS has instead of a large file.
_POINTER, _POINTER_BYTES = b"version https://git-lfs.github.com/spec/", 200


class Kind(StrEnum):
    """What a source's folder holds: a base model, an adapter in peft's format, or an export of l2v."""

    BASE = "base"
    ADAPTER = "adapter"
    EXPORT = "export"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint on this machine.

    Attributes:
        name: the name that the user gave, without the revision.
        folder: the folder with its files.
        revision: the commit on the Hub; "" for a folder.
    """

    name: str
    folder: Path
    revision: str = ""

    @property
    def label(self) -> str:
        """The name to show to others: a Hub id, or the last part of a path."""
        return label(self.name)

    def describe(self) -> dict[str, str]:
        """The source's entry in an encoder's provenance."""
        return {"name": self.label, "kind": self.kind, "revision": self.revision}

    @property
    def kind(self) -> Kind:
        """The kind of the folder.

        Raises:
            SourceError: if the folder is of none of the three kinds.
        """
        for file, kind in (
            ("l2v.json", Kind.EXPORT),
            ("adapter_config.json", Kind.ADAPTER),
            ("config.json", Kind.BASE),
        ):
            if (self.folder / file).is_file():
                return kind
        raise SourceError(f"{self.name} is not a model: its folder has no config.json, adapter_config.json or l2v.json")

    def read(self, file: str) -> dict[str, Any]:
        """The JSON object in a file of the folder; {} if there is no such file.

        Raises:
            SourceError: if the file does not hold a JSON object.
        """
        path = self.folder / file
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise SourceError(f"{file} of {self.name} is damaged ({error}): download or copy it again") from error
        except OSError as error:
            raise SourceError(
                f"{file} of {self.name} cannot be read ({error.strerror}): check its permissions"
            ) from error
        if not isinstance(content, dict):
            raise SourceError(f"{file} of {self.name} is damaged (not a JSON object): download or copy it again")
        return content

    @property
    def has_tokenizer(self) -> bool:
        files = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json")
        return any((self.folder / file).is_file() for file in files)

    @property
    def trained_on(self) -> str:
        """The model that an adapter names as its base; "" if the adapter names no base.

        Raises:
            SourceError: if the value is not a name.
        """
        named = self.read("adapter_config.json").get("base_model_name_or_path") or ""
        if not isinstance(named, str) or len(named) > _MAX_NAME:
            raise SourceError(
                f"adapter_config.json of {self.name} names a base_model_name_or_path that is not a Hub id or a path: "
                "correct it in a copy of the folder"
            )
        return named

    def relative(self, path: str) -> str:
        """The folder at a path relative to this source; "" if there is no such folder.

        Adapters trained with `l2v train` name their base by a relative path.
        """
        folder = Path(os.path.normpath(self.folder / path))
        return str(folder) if folder.is_dir() else ""


def label(name: str) -> str:
    """A source's name without the path on this machine."""
    path = Path(name).expanduser()
    return path.resolve().name if path.is_absolute() or name.startswith(".") or path.is_dir() else name


def resolve(name: str) -> Source:
    """Finds a folder, or downloads a Hub repository (`id` or `id@revision`) to the Hub cache.

    Raises:
        SourceError: if the source is missing, gated, offline or incomplete; the message says what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_pointers(name, folder)
        return Source(name, folder)
    repository, _, revision = name.partition("@")
    if folder.is_absolute() or name.startswith(".") or repository.count("/") != 1:
        raise SourceError(f"{name} is not a local folder, a published short name or a Hub id (owner/name)")
    return Source(repository, *_download(repository, revision or None))


def _check_pointers(name: str, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.stat().st_size <= _POINTER_BYTES and path.read_bytes().startswith(_POINTER):
            raise SourceError(
                f"{path.name} of {name} is a Git LFS pointer instead of the file: run `git lfs pull` in the folder, or "
                "download the repository with `hf download`"
            )


def _download(repository: str, revision: str | None) -> tuple[Path, str]:
    logger.info("downloading %s, unless it is in the Hub cache", repository)
    try:
        small = snapshot_download(repository, revision=revision, allow_patterns=_SMALL_FILES, ignore_patterns=_IGNORED)
        _refuse_quantized(Source(repository, Path(small), revision or ""))
        patterns = [*_SMALL_FILES, "*.safetensors"]
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=_IGNORED)
        )
        if not any(folder.glob("*.safetensors")):
            snapshot_download(
                repository, revision=revision, allow_patterns=[*_SMALL_FILES, "*.bin"], ignore_patterns=_IGNORED
            )
        if modules := _modules(folder):
            snapshot_download(repository, revision=revision, allow_patterns=modules)
    except SourceError:
        raise
    except GatedRepoError as error:
        raise SourceError(
            f"{repository} is gated: accept its licence on its Hub page, then set HF_TOKEN to a token of that account"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{repository} has no revision {revision}: check the part after the @") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise SourceError(
            f"{repository} is not on the Hub, or it is private: check the name, or set HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise SourceError(
            f"{repository}{f'@{revision}' if revision else ''} is not in the local Hub cache and the Hub cannot be "
            "reached: check the network and HF_HUB_OFFLINE, or download it beforehand with `hf download`"
        ) from error
    except Exception as error:  # the Hub's HTTP client and its errors differ between versions
        raise SourceError(
            f"{repository} could not be downloaded ({type(error).__name__}: {first_line(error)})"
        ) from error
    return folder, folder.name


def _refuse_quantized(source: Source) -> None:
    """If config.json marks the weights as quantized, fetches their headers, and refuses them if they are quantized.

    The mark alone proves nothing: it may be left over from training, although the weights have full precision.
    """
    config = source.read("config.json")
    mark = next((config[mark] for mark in checkpoints.KEYS if config.get(mark)), None)
    if mark is None:
        return
    try:
        files = get_safetensors_metadata(source.name, revision=source.revision or None).files_metadata.values()
    except Exception as error:  # offline, or in another format; `read_decoder` checks the downloaded files
        logger.debug("no headers of %s: %s", source.name, error)
        return
    dtypes = {name: str(tensor.dtype) for file in files for name, tensor in file.tensors.items()}
    if refusal := checkpoints.refusal(source.name, mark, dtypes):
        raise SourceError(refusal)


def _modules(folder: Path) -> list[str]:
    """Patterns for the files of sentence-transformers' modules, whose folders modules.json names."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8-sig"))
        paths = [module["path"] for module in modules if module["path"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []  # there is no such file, or `read_modules` will refuse it
    return [f"{path}/{file}" for path in paths for file in ("*.json", "*.safetensors", "*.bin")]
