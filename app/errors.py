"""What can go wrong with a request, and the single table from there to HTTP.

Exception
└── ServiceError
    ├── MalformedError       400
    ├── UnauthorizedError    401
    ├── NotFoundError        404
    ├── MethodError          405
    ├── TooLargeError        413
    ├── MediaTypeError       415
    ├── InvalidError         422
    ├── OverloadedError      429, with Retry-After
    ├── InternalError        500
    ├── UnavailableError     503
    └── DeadlineError        504
"""

from typing import Any, ClassVar

from pydantic import BaseModel


class ServiceError(Exception):
    """Something to tell the caller. Subclasses are the rows of the table.

    Attributes:
        param: what in the request is at fault, like `inputs[3].text`; None where nothing in particular is.
        headers: response headers beside the body.
    """

    status: ClassVar[int]
    type: ClassVar[str]
    meaning: ClassVar[str]

    def __init__(self, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        return {"error": {"type": self.type, "message": str(self), "param": self.param}}


class MalformedError(ServiceError):
    status, type, meaning = 400, "malformed", "The body is no JSON."


class UnauthorizedError(ServiceError):
    status, type, meaning = 401, "unauthorized", "The bearer key is missing or wrong."


class NotFoundError(ServiceError):
    status, type, meaning = 404, "not_found", "There is no such path."


class MethodError(ServiceError):
    status, type, meaning = 405, "method_not_allowed", "The path does not take this method."


class TooLargeError(ServiceError):
    status, type, meaning = 413, "too_large", "The body is too large, or holds too many inputs."


class MediaTypeError(ServiceError):
    status, type, meaning = 415, "unsupported_media_type", "The Content-Type is not application/json."


class InvalidError(ServiceError):
    status, type, meaning = 422, "invalid", "A value is invalid; `param` names it."


class OverloadedError(ServiceError):
    status, type, meaning = 429, "overloaded", "Too much work is waiting; try again after Retry-After seconds."

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class InternalError(ServiceError):
    status, type, meaning = 500, "internal", "A bug of ours; the message holds the request id and nothing else."


class UnavailableError(ServiceError):
    status, type, meaning = (
        503,
        "unavailable",
        "The model is loading, or the service is draining, or its engine is down.",
    )


class DeadlineError(ServiceError):
    status, type, meaning = 504, "deadline", "The request took too long and was given up."


TABLE: dict[int, type[ServiceError]] = {error.status: error for error in ServiceError.__subclasses__()}


class ErrorDetail(BaseModel):
    """What went wrong, and where in the request."""

    type: str
    message: str
    param: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the given statuses, from the table."""
    return {status: {"model": ErrorBody, "description": TABLE[status].meaning} for status in statuses}
