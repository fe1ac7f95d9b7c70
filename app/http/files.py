"""Static pages: a fixed set of files, read once, under a Content-Security-Policy of their own."""

import hashlib
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from l2v.app.http.errors import NotFoundError

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


class Files:
    """The files of a folder by name, so that no path of a caller reaches the file system.

    Args:
        folder: where they are; read when this is made.
        policy: what their pages may load, as Content-Security-Policy has it.
    """

    def __init__(self, folder: Path, policy: str) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): (path.read_bytes(), _TYPES[path.suffix])
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }
        self._tags = {
            name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, (content, _) in self._files.items()
        }
        self._headers = {
            "Content-Security-Policy": policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            "Referrer-Policy": "no-referrer",
            # Kept, and asked about each time: the names stay the same from version to version.
            "Cache-Control": "no-cache",
        }

    def serve(self, name: str, if_none_match: str) -> Response:
        """The file, or 304 where the caller has it; raises `NotFoundError` for one that there is not."""
        if name not in self._files:
            raise NotFoundError(NotFoundError.meaning, "path")
        content, media_type = self._files[name]
        headers = self._headers | {"ETag": self._tags[name]}
        if self._tags[name] in if_none_match:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    def router(self, page: str, folder: str) -> APIRouter:
        """Routes for index.html at `page` and for all files below `folder`."""
        router = APIRouter(include_in_schema=False)

        @router.get(page)
        async def index(if_none_match: Annotated[str, Header()] = "") -> Response:
            return self.serve("index.html", if_none_match)

        @router.get(f"{folder}/{{name:path}}")
        async def file(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
            return self.serve(name, if_none_match)

        return router
