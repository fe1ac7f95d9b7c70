"""Endpoints that take a JSON body: parsing, validation, and the call of the handler.

FastAPI declares and documents these endpoints, but doesn't run them, since its routing and dependency injection take
longer than everything else that a small request needs.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from l2v.app.engine.errors import InvalidError
from l2v.app.engine.served_models import ServedModel
from l2v.app.engine.service import Service
from l2v.app.engine.timings import Timings
from l2v.app.http.bodies import SLICE, parse
from l2v.app.http.messages import from_validation


class Call:
    """The arguments of a handler besides the body.

    Attributes:
        service: the service.
        state: the state of the request.
        timings: records the stages of the request.
        reserve: a function that reserves memory for a part of the response before that part is computed. It takes the
            size in bytes. It raises `TooLargeError` if the part can never fit into `max_total_body_bytes`, and
            `OverloadedError` if it does not fit now.
    """

    def __init__(self, service: Service, state: dict[str, Any]) -> None:
        self.service, self.state = service, state
        self.timings: Timings = state["timings"]
        self.reserve: Callable[[int], None] = state["reserve"]

    def choose(self, name: str | None = None) -> ServedModel:
        """The model that the path names, else the model called `name`, else the base. Metrics use this model's label.

        Raises:
            NotFoundError: if the service can have several models, but has none with this name.
            UnavailableError: while the model is loading.
        """
        model = self.service.models.find(self.state["path_model"] or name)
        self.state["model"] = model.label
        return model


class Endpoint:
    """Parses and validates a body, and calls a handler.

    Args:
        handler: takes the body, validated as the type of the handler's first parameter, and a `Call`.
    """

    def __init__(self, handler: Callable[[Any, Call], Awaitable[Response]]) -> None:
        self._handler = handler
        annotation = next(iter(get_type_hints(handler, include_extras=True).values()))
        self._validator = TypeAdapter(annotation).validator

    async def __call__(self, receive: Receive, call: Call) -> Response:
        request = await self._read((await receive())["body"])
        return await self._handler(request, call)

    async def _read(self, body: bytes) -> Any:
        """Returns the validated body. Raises `MalformedError`, `InvalidError` or `TooLargeError`."""
        value = await parse(body) if body else None
        if value is None:
            raise InvalidError("The body is missing.", "body")
        if len(body) > SLICE:
            await asyncio.sleep(0)
        try:
            return self._validator.validate_python(value)
        except ValidationError as error:
            fault = from_validation(error)
        raise fault  # not inside `except`, where the error's context would keep the body in memory


class Dispatcher:
    """Runs the endpoint of a POST request's path, if there is one. Passes all other requests to FastAPI."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = scope["state"]["target"].endpoint if scope.get("method") == "POST" else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        response = await endpoint(receive, Call(self._service, scope["state"]))
        await response(scope, receive, send)
