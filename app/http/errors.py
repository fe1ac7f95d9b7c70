"""Errors of the HTTP edge, and the table of each error's status and type in every API.

ServiceError (`l2v.app.engine.errors`)
├── MalformedError         the body is not JSON, or the request is not HTTP
├── UnauthorizedError      the key is missing or wrong
├── MethodError            the path does not support the method
├── MediaTypeError         the body is not application/json, or is compressed
├── HeadersTooLargeError   path and headers are too large
└── DeadlineError          the request took too long
"""

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from l2v.app.engine.errors import (
    EmptyError,
    InternalError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    ServiceError,
    TooLargeError,
    UnavailableError,
)


class MalformedError(ServiceError):
    """The body is not valid JSON, or the request is not valid HTTP."""


class UnauthorizedError(ServiceError):
    """The bearer key is missing or wrong."""


class MethodError(ServiceError):
    """The path does not support the method."""


class MediaTypeError(ServiceError):
    """The body is not plain JSON."""


class HeadersTooLargeError(ServiceError):
    """The path and the headers are too large."""


class DeadlineError(ServiceError):
    """The request took too long."""


# OpenAI's error types, and TEI's statuses with their error types.
_RATE, _SERVER = "rate_limit_error", "server_error"
_BACKEND, _DOWN = (424, "Backend"), (503, "Unhealthy")


class ErrorClass(NamedTuple):
    """How each API reports an error.

    Attributes:
        status: the status in the native API.
        type: `error.type` in the native API.
        meaning: the description in OpenAPI.
        openai: status and `error.type` in the OpenAI API.
        tei: status and `error_type` in the TEI API.
    """

    status: int
    type: str
    meaning: str
    openai: tuple[int, str]
    tei: tuple[int, str]


def _row(
    status: int, kind: str, meaning: str, openai: str = "invalid_request_error", tei: tuple[int, str] | None = None
) -> ErrorClass:
    openai_status = 400 if status == 422 else status
    return ErrorClass(status, kind, meaning, (openai_status, openai), tei or (status, "Validation"))


ERROR_CLASSES: dict[type[ServiceError], ErrorClass] = {
    MalformedError: _row(400, "malformed", "The body is not valid JSON, or the request is not valid HTTP."),
    UnauthorizedError: _row(401, "unauthorized", "The bearer key is missing or wrong."),
    NotFoundError: _row(404, "not_found", "There is no such path or model."),
    MethodError: _row(405, "method_not_allowed", "The path does not support this method."),
    TooLargeError: _row(413, "too_large", "The body is too large, or has too many inputs."),
    MediaTypeError: _row(415, "unsupported_media_type", "The body is not application/json, or it is compressed."),
    InvalidError: _row(422, "invalid", "A value is invalid; `param` names it.", tei=(413, "Validation")),
    OverloadedError: _row(
        429, "overloaded", "Too much work is waiting; try again after Retry-After seconds.", _RATE, (429, "Overloaded")
    ),
    HeadersTooLargeError: _row(431, "headers_too_large", "The headers and the path are too large."),
    InternalError: _row(500, "internal", "The model fails on an input, or the service has a bug.", _SERVER, _BACKEND),
    UnavailableError: _row(
        503, "unavailable", "The model is loading, the service is shutting down, or its engine is down.", _SERVER, _DOWN
    ),
    DeadlineError: _row(504, "deadline", "The request took too long.", _SERVER, _BACKEND),
}
BY_STATUS = {row.status: row for row in ERROR_CLASSES.values()}
# TEI reports an empty list or text differently from other invalid values.
ERROR_CLASSES[EmptyError] = ERROR_CLASSES[InvalidError]._replace(tei=(400, "Empty"))


def error_class(error: ServiceError) -> ErrorClass:
    """The entry of the table for an error."""
    return next(ERROR_CLASSES[kind] for kind in type(error).__mro__ if kind in ERROR_CLASSES)


def headers(error: ServiceError) -> dict[str, str]:
    """The response headers of an error."""
    match error:
        case UnauthorizedError():
            return {"WWW-Authenticate": "Bearer"}
        case OverloadedError(retry_after=int(seconds)) | UnavailableError(retry_after=int(seconds)):
            return {"Retry-After": str(seconds)}
        case UnavailableError(permanent=True):
            return {"Connection": "close"}  # so that the client's next request reaches another process
    return {}


def example(**fields: Any) -> ConfigDict:
    """The pydantic configuration that gives a schema an example in OpenAPI."""
    return ConfigDict(json_schema_extra={"examples": [fields]})


class ErrorDetail(BaseModel):
    """An error and the part of the request that caused it."""

    type: str = Field(description="The kind of error; see the table of errors")
    message: str = Field(description="What is wrong, and in which field")
    param: str | None = Field(description="The field at fault, such as `inputs[3].text`; null if there is none")


class ErrorBody(BaseModel):
    """The body of every error."""

    model_config = example(
        error={
            "type": "invalid",
            "message": "Invalid value for 'inputs[0].text': must not be empty or blank.",
            "param": "inputs[0].text",
        }
    )

    error: ErrorDetail = Field(description="What is wrong")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of the given statuses."""
    return {status: {"model": ErrorBody, "description": BY_STATUS[status].meaning} for status in statuses}
