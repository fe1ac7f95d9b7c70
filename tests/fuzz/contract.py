"""Checks responses: a 200 must match the OpenAPI document, an error must be in the table of errors."""

from functools import cache
from typing import Any

import httpx
import jsonschema_rs

from l2v.app.http.errors import ERROR_CLASSES

# The server is up, fast and has no other clients, so it must not return these.
_FAULTS = {429, 500, 503, 504}
_ROWS = [row for row in ERROR_CLASSES.values() if row.status not in _FAULTS]
# The statuses and types of errors, by surface.
_NATIVE = {(row.status, row.type) for row in _ROWS}
_OPENAI = {row.openai for row in _ROWS}
_TEI = {row.tei for row in _ROWS}


class Contract:
    """Which responses of a server are valid.

    Args:
        document: the server's OpenAPI document.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._validator = cache(self._make_validator)

    def problem(self, response: httpx.Response) -> str | None:
        """Describes why a response is invalid. Returns None if it is valid."""
        status, path = response.status_code, response.request.url.path
        if response.request.method == "HEAD" or status == 204:
            return None if status < 500 else f"status {status}"
        if status == 200:
            return self._problem_of_200(path, response)
        try:
            body = response.json()
        except ValueError:
            return f"status {status} without JSON: {response.content[:100]!r}"
        return (
            None
            if _in_table(path, status, body)
            else f"status {status} with {body}, which is not in the table of errors"
        )

    def _problem_of_200(self, path: str, response: httpx.Response) -> str | None:
        operation = self._document["paths"].get("/tei/embed" if path == "/tei" else path, {}).get("post")
        if operation is None or response.request.method != "POST":
            return None
        wrong = next(iter(self._validator(operation["operationId"]).iter_errors(response.json())), None)
        return f"200 with {wrong}"[:500] if wrong else None

    def _make_validator(self, operation_id: str) -> Any:
        for operations in self._document["paths"].values():
            for operation in operations.values():
                if operation["operationId"] == operation_id:
                    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
                    return jsonschema_rs.validator_for(schema | {"components": self._document["components"]})
        raise KeyError(operation_id)


def _in_table(path: str, status: int, body: Any) -> bool:
    if path == "/tei/v1/embeddings":
        return (
            body.keys() == {"message", "code", "type"}
            and (body["code"], body["type"]) in _TEI
            and status == body["code"]
        )
    if path == "/tei" or path.startswith("/tei/"):
        return body.keys() == {"error", "error_type"} and (status, body["error_type"]) in _TEI
    error = body.get("error", {})
    if path.startswith("/v1/"):
        return error.keys() == {"message", "type", "param", "code"} and (status, error["type"]) in _OPENAI
    return error.keys() == {"message", "type", "param"} and (status, error["type"]) in _NATIVE
