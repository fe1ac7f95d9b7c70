"""Errors of models and inputs. Each message is one sentence for the person who can fix the cause.

Exception
├── ModelError                 a model cannot be loaded, exported or trained
│   ├── SourceError              a source is missing, gated, offline or damaged
│   ├── AdapterError             an adapter does not fit or has no effect
│   └── UnsupportedModelError    l2v does not support a model, file or setting
└── ValueError
    └── InputError                 one input cannot be encoded
"""

import re


class ModelError(Exception):
    """A model cannot be loaded, exported or trained. The message says what is wrong, why, and what to do."""


class SourceError(ModelError):
    """A source is missing, gated, offline or damaged."""


class AdapterError(ModelError):
    """An adapter does not fit the base model, has no effect on it, or is of an unsupported kind."""


class UnsupportedModelError(ModelError):
    """l2v does not support the model, something that its files declare, or a setting on this device."""


class InputError(ValueError):
    """One input of a list cannot be encoded.

    Attributes:
        index: the input's position in the list.
        field: `"text"` or `"instruction"`.
    """

    def __init__(self, index: int, field: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.field = field


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not a heading. Headings end in a colon."""
    if isinstance(error, KeyError) and len(error.args) == 1 and " " not in str(error.args[0]):
        return f"there is no {error.args[0]}"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)  # KeyError adds quotes
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if not line.endswith(":")), " ".join(lines)).rstrip(":. ")
    return re.sub(r"^\w+Error: ", "", said) or type(error).__name__
