"""The API to try in the browser, at /docs: Swagger UI from our own files, since the network may end here."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.files import Files

# Swagger UI styles its elements inline and draws its icons from data.
_FILES = Files(
    Path(__file__).parents[1] / "swagger",
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page(if_none_match: Annotated[str, Header()] = "") -> Response:
    return _FILES.serve("index.html", if_none_match)


@router.get("/docs/{name}")
async def file(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
    return _FILES.serve(name, if_none_match)
