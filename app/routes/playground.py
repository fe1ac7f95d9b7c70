"""The web page at /: what it loads is ours alone, and nothing stands inline."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.files import Files

# Script that writes no markup from strings, on top of the usual.
_FILES = Files(
    Path(__file__).parents[1] / "playground",
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
)

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(if_none_match: Annotated[str, Header()] = "") -> Response:
    return _FILES.serve("index.html", if_none_match)


@router.get("/playground/{name:path}")
async def file(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    return _FILES.serve(name, if_none_match)
