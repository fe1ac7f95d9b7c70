"""Errors of models and inputs. Each message is one sentence for the person who can fix the cause.

Exception
├── ModelError                 a model cannot be loaded, exported or trained
│   ├── SourceError              a source is missing, gated, offline or damaged
│   ├── AdapterError             an adapter does not fit or has no effect
│   └── UnsupportedModelError    the architecture cannot be served faithfully
└── ValueError
    └── InputError                 one input cannot be encoded
"""


class ModelError(Exception):
    """A model cannot be loaded, exported or trained. The message says what is wrong, why, and what to do."""


class SourceError(ModelError):
    """A source is missing, gated, offline or damaged."""


class AdapterError(ModelError):
    """An adapter does not fit the base model or has no effect on it."""


class UnsupportedModelError(ModelError):
    """The architecture cannot run bidirectionally on packed sequences."""


class InputError(ValueError):
    """One input of a list cannot be encoded.

    Attributes:
        index: its position in the list.
        field: `"text"` or `"instruction"`.
    """

    def __init__(self, index: int, field: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.field = field


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its class if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
