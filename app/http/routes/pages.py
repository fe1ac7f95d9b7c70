"""The pages for people: the playground at `/` and the API reference at `/docs`, served from the package's own files."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from l2v.app.http import surfaces
from l2v.app.http.surfaces import Access, access

_APP = Path(__file__).parents[2]
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; "
)


_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    # Cached, but revalidated each time, since file names don't change between versions.
    "Cache-Control": "no-cache",
}
# No inline code, and no markup made from strings by scripts.
_PLAYGROUND = "style-src 'self'; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
# Swagger UI styles its elements inline, and draws its icons from data URLs.
_SWAGGER = "style-src 'self' 'unsafe-inline'; img-src 'self' data:"


def _router(folder: str, policy: str, page: str, below: str, level: Access) -> surfaces.Surface:
    """Routes that serve index.html of `folder` at the path `page`, and all files of `folder` below the path `below`."""
    router, files = surfaces.native(), StaticFiles(directory=_APP / folder)
    headers = _HEADERS | {"Content-Security-Policy": _POLICY + policy}

    @access(level)
    async def serve(request: Request) -> Response:
        response = await files.get_response(request.path_params.get("name", "index.html"), request.scope)
        response.headers.update(headers)
        return response

    for path in (page, f"{below}/{{name:path}}"):
        router.add_route(path, serve, ["GET"], include_in_schema=path == page)
    return router


playground = _router("playground", _PLAYGROUND, "/", "/playground", Access.PAGE)
docs = _router("swagger", _SWAGGER, "/docs", "/docs", Access.DOCS)


@access(Access.DOCS)
async def openapi(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(request.app.openapi())


docs.add_route("/openapi.json", openapi, include_in_schema=False)
