"""Why the engine rejects or fails a request.

Exception
└── ServiceError
    ├── InvalidError       a value is invalid
    │   ├── EmptyError       an input is empty
    │   └── TooLongError     a text is too long and must not be truncated
    ├── TooLargeError      the request has more inputs, tokens or bytes than one request may have
    ├── NotFoundError      nothing has this name
    ├── OverloadedError    too much work is waiting
    ├── UnavailableError   the model is loading, the service is shutting down, or its engine is down
    └── InternalError      the model fails on an input, or the code has a bug
"""


class ServiceError(Exception):
    """An error to report to the caller.

    Attributes:
        param: the part of the request at fault, like `inputs[3].text`; None if there is no such part.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidError(ServiceError):
    """A value is invalid."""


class EmptyError(InvalidError):
    """A list or a text is empty."""


class TooLongError(InvalidError):
    """A text has too many tokens, and the request forbids truncation."""


class TooLargeError(ServiceError):
    """The request has more inputs, tokens or bytes than one request may have."""


class NotFoundError(ServiceError):
    """Nothing has this name."""


class OverloadedError(ServiceError):
    """Too much work is waiting.

    Attributes:
        retry_after: seconds after which the caller should try again.
    """

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(ServiceError):
    """The service accepts no requests.

    Attributes:
        permanent: whether this process will never accept requests again, so that callers should try another process.
        retry_after: seconds after which the caller should try again, if that is known.
    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after = retry_after


class InternalError(ServiceError):
    """The model fails on an input, or the code has a bug."""
