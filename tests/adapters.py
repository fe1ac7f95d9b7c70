"""A tiny base with two adapters, for tests of models that requests choose by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from l2v.models import Encoder, Input, load
from tests import tiny


@dataclass(frozen=True)
class Stack:
    """A base and a folder with adapters for it.

    Attributes:
        base: the base's folder.
        root: the folder of the adapters `law` and `code`, and of others that must be rejected.
    """

    base: Path
    root: Path

    @classmethod
    def make(cls, base: Path, root: Path) -> "Stack":
        """Writes two adapters, which change different layers; `code` has a pooling and a length of its own."""
        tiny.make_adapter(root / "law", base, seed=1)
        tiny.make_adapter(root / "code", base, seed=2, targets=["q_proj", "down_proj"])
        (root / "code" / "llm2vec_config.json").write_text('{"pooling_mode": "last_token", "max_length": 64}')
        return cls(base, root)

    @property
    def modules(self) -> str:
        """The value of `lora_modules`."""
        return f"law={self.root / 'law'},code={self.root / 'code'}"

    def load(self, **modules: Path) -> Encoder:
        """The base with unmerged adapters, by default `law` and `code`."""
        names = modules or {name: self.root / name for name in ("law", "code")}
        return load(str(self.base), dtype="float32", lora_modules={name: str(each) for name, each in names.items()})

    def merged(self, name: str | None, text: str = "hello", instruction: str = "") -> Any:
        """The normalized vector of a text, with the adapter merged into the base; None: of the base."""
        adapters = [str(self.root / name)] if name else []
        (vector,) = load(str(self.base), adapters, dtype="float32").encode([Input(text, instruction)])
        return vector / np.linalg.norm(vector)
