"""What people open in a browser: the page at / and the API at /docs, all of it from our own files."""

from pathlib import Path

from l2v.app.http.files import Files

_APP = Path(__file__).parents[2]
_OURS = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

# Nothing inline, and no markup made from strings by script.
_PLAYGROUND = f"{_OURS}; style-src 'self'; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'"
playground = Files(_APP / "playground", _PLAYGROUND).router("/", "/playground")

# Swagger UI styles its elements inline and draws its icons from data.
_DOCS = f"{_OURS}; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
docs = Files(_APP / "swagger", _DOCS).router("/docs", "/docs")
