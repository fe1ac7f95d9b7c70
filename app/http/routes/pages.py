"""The pages for people: the playground at `/` and the API reference at `/docs`, served from the package's own files."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from l2v.app.http.surfaces import NATIVE, Access, SurfaceRouter, access

_APP = Path(__file__).parents[2]
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; "
)


class Files(StaticFiles):
    """The files of a folder, under the given Content-Security-Policy."""

    def __init__(self, folder: Path, policy: str) -> None:
        super().__init__(directory=folder)
        self._headers = {
            "Content-Security-Policy": _POLICY + policy,
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
            "Referrer-Policy": "no-referrer",
            # Cached, but revalidated each time: file names don't change between versions.
            "Cache-Control": "no-cache",
        }

    async def serve(self, request: Request) -> Response:
        response = await self.get_response(request.path_params.get("name", "index.html"), request.scope)
        response.headers.update(self._headers)
        return response


def _router(folder: Path, policy: str, page: str, below: str, level: Access) -> SurfaceRouter:
    """Routes for index.html at `page` and for all files of the folder below `below`."""
    router, files = SurfaceRouter(NATIVE), Files(folder, policy)

    @access(level)
    async def serve(request: Request) -> Response:
        return await files.serve(request)

    for path in (page, f"{below}/{{name:path}}"):
        router.add_route(path, serve, ["GET"], include_in_schema=path == page)
    return router


# No inline code, and no markup made from strings by scripts.
playground = _router(
    _APP / "playground",
    "style-src 'self'; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'",
    "/",
    "/playground",
    Access.PAGE,
)
# Swagger UI styles its elements inline, and draws its icons from data URLs.
docs = _router(
    _APP / "swagger", "style-src 'self' 'unsafe-inline'; img-src 'self' data:", "/docs", "/docs", Access.DOCS
)


@access(Access.DOCS)
async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


docs.add_route("/openapi.json", openapi, include_in_schema=False)
