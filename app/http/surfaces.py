"""The APIs, each with its own form of errors, and their paths."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from l2v.app.engine.errors import NotFoundError, ServiceError
from l2v.app.engine.served_models import ServedModels
from l2v.app.http.endpoints import Endpoint
from l2v.app.http.errors import ErrorClass, error_class, headers
from l2v.app.http.messages import full_message

Render = Callable[[ServiceError, ErrorClass], tuple[int, Any]]
F = TypeVar("F", bound=Callable[..., Any])

# Paths of other services, and the paths of this service that clients of those services should use.
_FOREIGN = {
    "/api/embed": "/v1/embeddings",
    "/v1/embed": "/v2/embed",
    "/api/tags": "/v1/models",
    "/v1": "/v1/embeddings",
    "/": "/tei",
}


class Access(Enum):
    """Who may call a path without a key."""

    KEY = auto()  # nobody
    PAGE = auto()  # anyone
    PROBE = auto()  # anyone; logged at debug level, since probes come every few seconds
    METRICS = auto()  # anyone, unless `protect_metrics` is set; logged like probes
    DOCS = auto()  # anyone, unless `protect_docs` is set


def access(level: Access) -> Callable[[F], F]:
    """Declares who may call an endpoint without a key. Endpoints without this decorator require a key."""

    def mark(endpoint: F) -> F:
        endpoint.access = level  # type: ignore[attr-defined]
        return endpoint

    return mark


class Surface(APIRouter):
    """One API: its routes, which are all below one prefix, and the form of its errors.

    Args:
        render: returns the status and the body of an error.
        prefix: the start of all paths of the API.
        base: the path of a client's base URL; default: the prefix.
        name: the start of the API's operation ids.
    """

    def __init__(self, render: Render, prefix: str, base: str | None = None, name: str = "", **kwargs: Any) -> None:
        # Operation ids become the names of functions in generated clients.
        super().__init__(prefix=prefix, generate_unique_id_function=lambda route: f"{name}{route.name}", **kwargs)
        self._render = render
        self.base = prefix if base is None else base

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **kwargs: Any) -> None:
        """Adds a route. A route that answers GET answers HEAD too."""
        super().add_api_route(path, endpoint, **kwargs)
        if "GET" in (kwargs.get("methods") or ["GET"]):
            super().add_api_route(path, endpoint, **kwargs | {"methods": ["HEAD"], "include_in_schema": False})

    def to_response(self, error: ServiceError, **extra_headers: str) -> Response:
        """The response to an error."""
        status, content = self._render(error, error_class(error))
        return JSONResponse(content, status, headers(error) | extra_headers)


def _native(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.status, {"error": {"message": full_message(error), "type": row.type, "param": error.param}}


def _openai(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    status, kind = row.openai
    return status, {"error": {"message": full_message(error), "type": kind, "param": error.param, "code": None}}


def _cohere(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.openai[0], {"message": full_message(error)}


def _tei(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.tei[0], {"error": full_message(error), "error_type": row.tei[1]}


def _tei_openai(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.tei[0], {"message": full_message(error), "code": row.tei[0], "type": row.tei[1]}


_TEI = "/tei"
native, openai = partial(Surface, _native, ""), partial(Surface, _openai, "/v1", name="openai_")
cohere = partial(Surface, _cohere, "/v2", base="", name="cohere_")
tei, tei_openai = (partial(Surface, render, _TEI, name="tei_") for render in (_tei, _tei_openai))


@dataclass(frozen=True, slots=True)
class Target:
    """How requests to a path are handled.

    Attributes:
        route: the path's template, or "other"; used in metrics and logs, since callers cannot invent templates.
        surface: the API of the path, which decides the form of errors.
        access: who may call the path without a key.
        methods: the methods that the path supports.
        endpoint: handles POST requests to the path. If None, FastAPI handles all requests to the path.
    """

    route: str
    surface: Surface
    access: Access = Access.KEY
    methods: frozenset[str] = frozenset()
    endpoint: Endpoint | None = None


class Targets:
    """All paths of the application. The key check, errors, metrics, logs and traces all use this list.

    Args:
        surfaces: the routes of all APIs.
        models: the models that a path below /tei may name.
    """

    def __init__(self, surfaces: Sequence[Surface], models: ServedModels) -> None:
        self._models = models
        self._exact: dict[str, Target] = {}
        self._templates: dict[re.Pattern[str], Target] = {}
        for surface in surfaces:
            for route in surface.routes:
                assert isinstance(route, Route)
                self._add(route, surface)
        # The longest prefix comes first. The native API's surfaces have no prefix and come last.
        self._unknown = [Target("other", surface) for surface in sorted(surfaces, key=lambda s: -len(s.prefix))]

    def resolve(self, path: str) -> tuple[str, str, Target]:
        """Splits a model's name from a path, and finds the path's target.

        For an unknown path, the longest matching prefix decides the API.

        Returns:
            The path without model and without the slash that many clients add at the end; the model's name, or "" if
            the path names no model; and the target.
        """
        path, model = self._split(path)
        if target := self._exact.get(path):
            return path, model, target
        for pattern, target in self._templates.items():
            if pattern.match(path):
                return path, model, target
        unknown = (target for target in self._unknown if path.startswith(f"{target.surface.prefix}/"))
        return path, model, next(unknown, self._unknown[-1])

    def find(self, path: str) -> Target:
        """The target of a path."""
        return self.resolve(path)[2]

    def _split(self, path: str) -> tuple[str, str]:
        """Removes a slash at the end, and the name of a model.

        Clients of TEI cannot name a model in the body, so a path below /tei may name the model: /tei/{name}/embed
        is /tei/embed with that model.
        """
        path = path[:-1] if path[-1:] == "/" and path[-2:-1] not in ("", "/") else path
        if path not in self._exact:
            for tail, name in self._names(path):
                if name in self._models:
                    return f"{_TEI}{tail}", name
        return path, ""

    def unknown_model(self, path: str) -> NotFoundError | None:
        """The error for an unknown path that has the form /tei/{name}/…; None for other paths.

        None also if the service can have only one model.
        """
        named = self._models.strict and any(name for tail, name in self._names(path) if tail)
        return self._models.unknown() if named else None

    def _names(self, path: str) -> Iterator[tuple[str, str]]:
        """Each way to read a path as /tei/{name}{tail} where /tei{tail} is a known path. Yields tail and name."""
        if path.startswith(f"{_TEI}/"):
            for tail in (known.removeprefix(_TEI) for known in self._exact if known.startswith(_TEI)):
                if path.endswith(tail):
                    yield tail, path[len(_TEI) + 1 : len(path) - len(tail)]

    def suggest(self, path: str) -> str:
        """Suggests the path that a client with a wrong base URL means; "" if no known path is similar."""
        segments = [segment for segment in path.split("/") if segment]
        prefixes = ("/tei", "", "/v1") if segments[:1] == ["tei"] else ("", "/v1", "/tei")
        tails = ["/" + "/".join(segments[start:]) for start in range(max(0, len(segments) - 3), len(segments))]
        candidates = [_FOREIGN.get(path, ""), *(p + tail for tail in tails for p in prefixes)]
        known = next((each for each in candidates if each and self.find(each).route != "other"), None)
        if known is None:
            return ""
        base = self.find(known).surface.base
        return f"Did you mean {known}? The client's base URL should {f'end in {base}' if base else 'have no path'}."

    @property
    def probes(self) -> list[str]:
        """The paths that probes and scrapers call every few seconds."""
        return [path for path, target in self._exact.items() if target.access in (Access.PROBE, Access.METRICS)]

    def _add(self, route: Route, surface: Surface) -> None:
        exact = "{" not in route.path
        targets: dict[Any, Target] = self._exact if exact else self._templates
        key = route.path if exact else route.path_regex
        label = route.path_format if exact or route.include_in_schema else "other"
        level = getattr(route.endpoint, "access", Access.KEY)
        known = targets.get(key) or Target(label, surface, level)
        # All methods of a path share one access level. If the methods declare different levels, a key is required.
        level = level if known.access is level else Access.KEY
        endpoint = Endpoint(route.endpoint) if "POST" in (route.methods or ()) else known.endpoint
        methods = known.methods | frozenset(route.methods or ())
        targets[key] = replace(known, access=level, methods=methods, endpoint=endpoint)
