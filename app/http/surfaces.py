"""The API surfaces, which word errors differently, and the paths that they answer."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from l2v.app.engine.errors import ServiceError
from l2v.app.http.errors import ErrorClass, error_class, headers

Render = Callable[[ServiceError, ErrorClass], tuple[int, Any]]
F = TypeVar("F", bound=Callable[..., Any])


class Access(Enum):
    """Who may call a path without a key."""

    KEY = auto()  # nobody
    PAGE = auto()  # anyone
    PROBE = auto()  # anyone; logged at debug level, since probes come every few seconds
    METRICS = auto()  # anyone, unless `protect_metrics` is set; logged like probes
    DOCS = auto()  # anyone, unless `protect_docs` is set


def access(level: Access) -> Callable[[F], F]:
    """Declares who may call an endpoint; without it, a key is required."""

    def mark(endpoint: F) -> F:
        endpoint.access = level  # type: ignore[attr-defined]
        return endpoint

    return mark


class Surface(APIRouter):
    """The routes of an API with its own form of errors, all below one prefix.

    Args:
        render: returns the status and the body of an error.
        prefix: of the paths.
    """

    def __init__(self, render: Render, prefix: str, **kwargs: Any) -> None:
        super().__init__(prefix=prefix, **kwargs)
        self._render = render

    def to_response(self, error: ServiceError, **extra_headers: str) -> Response:
        """The response to an error."""
        status, content = self._render(error, error_class(error))
        return JSONResponse(content, status, headers(error) | extra_headers)


def _native(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.status, {"error": {"message": str(error), "type": row.type, "param": error.param}}


def _openai(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    status, kind = row.openai
    return status, {"error": {"message": str(error), "type": kind, "param": error.param, "code": None}}


def _tei(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.tei[0], {"error": _with_param(error), "error_type": row.tei[1]}


def _tei_openai(error: ServiceError, row: ErrorClass) -> tuple[int, Any]:
    return row.tei[0], {"message": _with_param(error), "code": row.tei[0], "type": row.tei[1]}


def _with_param(error: ServiceError) -> str:
    return f"{error.param}: {error}" if error.param else str(error)


native, openai = partial(Surface, _native, ""), partial(Surface, _openai, "/v1")
tei, tei_openai = partial(Surface, _tei, "/tei"), partial(Surface, _tei_openai, "/tei")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path leads to.

    Attributes:
        route: the path's template, or "other": one of few, whatever callers request.
        surface: how errors are worded.
        access: who may call it without a key.
    """

    route: str
    surface: Surface
    access: Access = Access.KEY


class Targets:
    """All paths of the application: the one list that keys, errors, metrics, logs and traces go by."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        self._exact: dict[str, Target] = {}
        self._templates: list[tuple[re.Pattern[str], Target]] = []
        for surface in surfaces:
            for route in surface.routes:
                assert isinstance(route, Route)
                self._add(route, surface)
        # The longest prefix first; native surfaces have none and come last.
        self._unknown = [Target("other", surface) for surface in sorted(surfaces, key=lambda s: -len(s.prefix))]

    def find(self, path: str) -> Target:
        """What a path leads to; an unknown path belongs to the surface whose prefix it has."""
        if target := self._exact.get(path):
            return target
        for pattern, target in self._templates:
            if pattern.match(path):
                return target
        unknown = (target for target in self._unknown if path.startswith(f"{target.surface.prefix}/"))
        return next(unknown, self._unknown[-1])

    @property
    def probes(self) -> list[str]:
        """The paths that are called every few seconds."""
        return [path for path, target in self._exact.items() if target.access in (Access.PROBE, Access.METRICS)]

    def _add(self, route: Route, surface: Surface) -> None:
        level = getattr(route.endpoint, "access", Access.KEY)
        if "{" not in route.path:
            known = self._exact.get(route.path)
            # Two methods of one path share its access, which is the stricter one.
            level = Access.KEY if known and known.access is not level else level
            self._exact[route.path] = replace(known or Target(route.path, surface), access=level)
        else:
            label = route.path_format if route.include_in_schema else "other"
            self._templates.append((route.path_regex, Target(label, surface, level)))
