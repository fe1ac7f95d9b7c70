"""Reads the JSON files of a sentence-transformers repository, and refuses what l2v does not serve."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from l2v.models.errors import SourceError, UnsupportedModelError
from l2v.models.sources import Source

MODULES, SETTINGS, MODEL_SETTINGS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class DenseConfig:
    """One Dense layer as its folder declares it.

    Attributes:
        folder: the folder within the repository; for the decoder's own projection, the name of its tensor.
        inputs: width of the layer's input.
        outputs: width of the layer's output.
        bias: whether the layer adds a bias.
        activation: a path like `torch.nn.modules.activation.Tanh`.
        residual: whether the layer adds its input to its output.
        per_token: whether the layer applies to each token's state, before pooling.
        normalized: whether the layer's input is normalized first.
    """

    folder: str
    inputs: int
    outputs: int
    bias: bool = False
    activation: str = "torch.nn.modules.linear.Identity"
    residual: bool = False
    per_token: bool = False
    normalized: bool = False


@dataclass
class Layout:
    """The values that a repository's files declare.

    Attributes:
        values: the values, named as in `declaration.Declaration`, each with the file that it comes from.
        config: keys to add to config.json.
        layers: the Dense layers, in order.
        width: the width of the token states that the pooling expects; 0 if not declared.
    """

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    layers: list[DenseConfig] = field(default_factory=list)
    width: int = 0


@dataclass(frozen=True)
class File:
    """A JSON object in a file of a source.

    Attributes:
        source: the source.
        name: the file's path within the source.
        content: the object; {} if there is no such file.
    """

    source: Source
    name: str
    content: Mapping[str, Any]

    @classmethod
    def read(cls, source: Source, name: str, known: Collection[str]) -> "File":
        """Reads the file, and refuses unknown keys.

        Raises:
            SourceError: if the file does not hold a JSON object.
            UnsupportedModelError: if the object has a key that is not in `known`.
        """
        file = cls(source, name, source.read(name))
        if unknown := sorted(file.content.keys() - set(known)):
            file.refuse(f"has the key {unknown[0]}")
        return file

    def get(self, key: str, kind: type, default: Any) -> Any:
        """The value of a key, or the default if the key is missing or null.

        Raises:
            SourceError: if the value has another type.
        """
        value = self.content.get(key)
        if value is None:
            return default
        if type(value) is not kind:
            raise SourceError(
                f"{self.name} of {self.source.name} has {key} = {value!r}, which must be of type {kind.__name__}: "
                "correct it in a copy of the folder"
            )
        return value

    def count(self, key: str) -> int | None:
        """The value of a key that holds an integer of at least 1; None if the key is missing or null."""
        value: int | None = self.get(key, int, None)
        if value is not None and value < 1:
            self.refuse(f"has {key} = {value}")
        return value

    def refuse(self, problem: str) -> NoReturn:
        """Raises `UnsupportedModelError` for a problem with what the file declares."""
        raise UnsupportedModelError(
            f"{self.name} of {self.source.name} {problem}, which l2v does not serve: choose another model, or set "
            "semantics to llm2vec to ignore its sentence-transformers files, which gives other vectors"
        )
