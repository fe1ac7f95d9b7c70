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
    ├── HeadersTooLargeError 431
    ├── InternalError        500
    ├── UnavailableError     503
    └── DeadlineError        504
"""

from typing import Any, ClassVar

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response


class ServiceError(Exception):
    """Something to tell the caller. Subclasses are the rows of the table, its columns the three surfaces.

    Attributes:
        param: what in the request is at fault, like `inputs[3].text`; None where nothing in particular is.
        headers: response headers beside the body.
    """

    status: ClassVar[int]
    type: ClassVar[str]
    meaning: ClassVar[str]
    openai: ClassVar[tuple[int, str]]
    tei: ClassVar[tuple[int, str]]

    def __init__(self, message: str, param: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.headers = headers or {}


class MalformedError(ServiceError):
    status, type, meaning = 400, "malformed", "The body is not valid JSON, or the request is not valid HTTP."
    openai, tei = (400, "invalid_request_error"), (400, "Validation")


class UnauthorizedError(ServiceError):
    status, type, meaning = 401, "unauthorized", "The bearer key is missing or wrong."
    openai, tei = (401, "invalid_request_error"), (401, "Validation")


class NotFoundError(ServiceError):
    status, type, meaning = 404, "not_found", "There is no such path."
    openai, tei = (404, "invalid_request_error"), (404, "Validation")


class MethodError(ServiceError):
    status, type, meaning = 405, "method_not_allowed", "The path does not take this method."
    openai, tei = (405, "invalid_request_error"), (405, "Validation")


class TooLargeError(ServiceError):
    status, type, meaning = 413, "too_large", "The body is too large, or holds too many inputs."
    openai, tei = (413, "invalid_request_error"), (413, "Validation")


class MediaTypeError(ServiceError):
    status, type, meaning = (
        415,
        "unsupported_media_type",
        "The Content-Type is not application/json, or the body is compressed.",
    )
    openai, tei = (415, "invalid_request_error"), (415, "Validation")


class InvalidError(ServiceError):
    status, type, meaning = 422, "invalid", "A value is invalid; `param` names it."
    openai, tei = (400, "invalid_request_error"), (413, "Validation")


class EmptyError(InvalidError):
    """A list or a text without anything in it, which TEI tells apart."""

    tei = (400, "Empty")


class TooLongError(InvalidError):
    """A text with too many tokens that may not be cut."""


class OverloadedError(ServiceError):
    status, type, meaning = 429, "overloaded", "Too much work is waiting; try again after Retry-After seconds."
    openai, tei = (429, "rate_limit_error"), (429, "Overloaded")

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after)})


class HeadersTooLargeError(ServiceError):
    status, type, meaning = 431, "headers_too_large", "The headers and the path are too large."
    openai, tei = (431, "invalid_request_error"), (431, "Validation")


class InternalError(ServiceError):
    status, type, meaning = (
        500,
        "internal",
        "A bug of ours, or an input that the model fails on: `param` names it.",
    )
    openai, tei = (500, "server_error"), (424, "Backend")


class UnavailableError(ServiceError):
    status, type, meaning = 503, "unavailable", "The model is loading, or the service drains, or its engine is down."
    openai, tei = (503, "server_error"), (503, "Unhealthy")


class DeadlineError(ServiceError):
    status, type, meaning = 504, "deadline", "The request took too long and was given up."
    openai, tei = (504, "server_error"), (424, "Backend")


def answer(error: ServiceError, path: str) -> Response:
    """The response to an error in the words of the surface that the path belongs to."""
    named = f"{error.param}: {error}" if error.param else str(error)  # TEI has no field for it
    if path in ("/tei/v1/embeddings", "/tei/embeddings"):
        status, kind = error.tei
        content: dict[str, Any] = {"message": named, "code": status, "type": kind}
    elif path == "/tei" or path.startswith("/tei/"):
        status, kind = error.tei
        content = {"error": named, "error_type": kind}
    elif path.startswith("/v1/"):
        status, kind = error.openai
        content = {"error": {"message": str(error), "type": kind, "param": error.param, "code": None}}
    else:
        status = error.status
        content = {"error": {"message": str(error), "type": error.type, "param": error.param}}
    return JSONResponse(content, status, error.headers)


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
