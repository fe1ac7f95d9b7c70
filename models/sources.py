"""From what a person names (a Hub id or a folder) to a local folder of one of three kinds."""

import json
import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from l2v.models.errors import SourceError, first_line

logger = logging.getLogger(__name__)

# Configuration and tokenizer first; weights only in the safe format where there is one. Code is never fetched.
_SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
_IGNORED = ["*/*", "consolidated*", "*.py"]


class Kind(StrEnum):
    """What a folder holds."""

    BASE = "base"
    ADAPTER = "adapter"
    EXPORT = "export"


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint on this machine.

    Attributes:
        name: as the person named it, without the revision.
        folder: where its files are.
        revision: the commit on the Hub; "" for a folder.
    """

    name: str
    folder: Path
    revision: str = ""

    @property
    def label(self) -> str:
        """The name to show to others: of a folder its last part only."""
        return label(self.name)

    def describe(self) -> dict[str, str]:
        """For the record of what an encoder was made of."""
        return {"name": self.label, "kind": self.kind, "revision": self.revision}

    @property
    def kind(self) -> Kind:
        """Which of the three kinds the folder is.

        Raises:
            SourceError: if it is none.
        """
        for file, kind in (
            ("l2v.json", Kind.EXPORT),
            ("adapter_config.json", Kind.ADAPTER),
            ("config.json", Kind.BASE),
        ):
            if (self.folder / file).is_file():
                return kind
        raise SourceError(
            f"{self.name} is not a model: its folder holds none of config.json, adapter_config.json and l2v.json"
        )

    def read(self, file: str) -> dict[str, Any]:
        """The JSON object in a file of the folder; empty where there is no such file.

        Raises:
            SourceError: if the file is not a JSON object.
        """
        path = self.folder / file
        if not path.is_file():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise SourceError(f"{file} of {self.name} is damaged ({error}): fetch or copy it again") from error
        if not isinstance(content, dict):
            raise SourceError(f"{file} of {self.name} is damaged (not a JSON object): fetch or copy it again")
        return content

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / "tokenizer_config.json").is_file()


def label(name: str) -> str:
    """A source's name without the path of any machine."""
    path = Path(name).expanduser()
    return path.resolve().name if path.is_absolute() or name.startswith(".") or path.is_dir() else name


def resolve(name: str) -> Source:
    """Finds a folder, or fetches a Hub repository (`id` or `id@revision`) into the Hub cache.

    Raises:
        SourceError: if it is missing, gated, offline or incomplete; the message says which and what to do.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Source(name, folder)
    repository, _, revision = name.partition("@")
    if folder.is_absolute() or name.startswith(".") or repository.count("/") != 1:
        raise SourceError(f"{name} is neither a folder here nor a published short name nor a Hub id (owner/name)")
    return Source(repository, *_fetch(repository, revision or None))


def _fetch(repository: str, revision: str | None) -> tuple[Path, str]:
    logger.info("fetching %s, unless the Hub cache has it", repository)
    try:
        patterns = [*_SMALL_FILES, "*.safetensors"]
        folder = Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=_IGNORED)
        )
        if not any(folder.glob("*.safetensors")):
            snapshot_download(
                repository, revision=revision, allow_patterns=[*_SMALL_FILES, "*.bin"], ignore_patterns=_IGNORED
            )
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
            "reached: check the network and HF_HUB_OFFLINE, or fetch it beforehand with `hf download`"
        ) from error
    except Exception as error:  # also what the Hub's HTTP client raises, which is another one from version to version
        raise SourceError(f"{repository} could not be fetched ({type(error).__name__}: {first_line(error)})") from error
    return folder, folder.name
