"""The messages of errors. SDKs show only the message, so it names the field at fault and the type of its value."""

import json
from typing import Any

from pydantic import ValidationError

from l2v.app.engine.errors import EmptyError, InternalError, InvalidError, ServiceError, TooLargeError
from l2v.app.http.errors import MalformedError
from l2v.app.http.schemas.inputs import param_of

# The errors to raise instead of `InvalidError`, by the type of pydantic's error.
_ERRORS: dict[str, type[ServiceError]] = {"too_short": EmptyError, "blank": EmptyError, "too_many": TooLargeError}
# What a value of the wrong type should have been. For `input_type` and `literal_error`, pydantic's error contains it.
_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "bool_type": "a boolean",
    "list_type": "an array",
    "tuple_type": "an array of an instruction and a text",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "input_type": "{message}",
    "literal_error": "{expected}",
}
_REASONS = {
    "greater_than_equal": "must be at least {ge}",
    "string_unicode": "must be Unicode text, without lone surrogates",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} items",
}
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def full_message(error: ServiceError) -> str:
    """The message of an error, which names the field at fault if there is one."""
    message, param = str(error), error.param
    in_field = isinstance(error, InvalidError | TooLargeError | InternalError) and param not in (None, "body")
    if not in_field or f"'{param}'" in message:
        return message
    return f"{'Failed on' if isinstance(error, InternalError) else 'Invalid value for'} '{param}': {message}."


def from_validation(error: ValidationError) -> ServiceError:
    """Converts pydantic's errors to a single `ServiceError`, worded as in OpenAI's API."""
    faults = error.errors(include_url=False)
    # Prefer the error of an unsupported field like `inputs`, since it explains why a field like `input` is missing.
    first: Any = next((fault for fault in faults if fault["type"] == "unsupported"), faults[0])
    param = param_of(first["loc"]) or "body"
    return _ERRORS.get(first["type"], InvalidError)(_validation_message(first, param), param)


def from_parser(cause: BaseException | None) -> MalformedError:
    """Converts the parser's exception to an error that says what is wrong in the body, and where, if that is known."""
    match cause:
        case json.JSONDecodeError():
            reason = f"{cause.msg[:1].lower()}{cause.msg[1:]} at line {cause.lineno}, column {cause.colno}"
        case UnicodeDecodeError(object=body, start=start):
            message = f"the body is not UTF-8: byte {start + 1} is 0x{body[start]:02X}, as in Latin-1 or Windows-1252"
            return MalformedError(message, "body")
        case RecursionError():
            reason = "it is nested too deeply"
        case ValueError():  # Python limits the digits of a number
            reason = "a number has too many digits"
        case _:
            return MalformedError("the body is not valid JSON", "body")
    return MalformedError(f"the body is not valid JSON: {reason}", "body")


def check_encoding(body: bytes) -> None:
    """Raises `MalformedError` if a body's first bytes show an encoding other than UTF-8, or are a byte order mark."""
    encoding = json.detect_encoding(body[:4])
    if encoding == "utf-8-sig":
        raise MalformedError("the body starts with a byte order mark: send UTF-8 without one", "body")
    if encoding != "utf-8":
        raise MalformedError(f"the body is {encoding[:6].upper()}: send UTF-8", "body")


def _validation_message(error: dict[str, Any], param: str) -> str:
    kind, context = error["type"], {"message": error["msg"].removeprefix("Value error, "), **error.get("ctx", {})}
    if kind == "extra_forbidden":
        return f"Unknown parameter: '{param}'."
    if kind == "unsupported":
        return f"Unsupported {context['what']}: '{param}'. {error['msg']}."
    if kind == "missing":
        return f"Missing required parameter: '{param}'."
    if kind not in _EXPECTED:
        return f"Invalid value for '{param}': {_REASONS.get(kind, '{message}').format(**context)}."
    value, expected = error["input"], _EXPECTED[kind].format(**context)
    if kind == "literal_error" and isinstance(value, str):
        return f"Invalid value for '{param}': expected {expected}, but got another string instead."
    return (
        f"Invalid type for '{param}': expected {expected}, but got {_KINDS.get(type(value), 'another value')} instead."
    )
