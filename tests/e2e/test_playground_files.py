"""The files of the playground, without a browser."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from l2v.models import Encoder
from tests.serving import LocalServer

ROOT = Path(__file__).parents[2]
PLAYGROUND = ROOT / "app" / "playground"


def test_files_have_strict_headers_and_an_etag(server: LocalServer) -> None:
    for path, media_type in {
        "/": "text/html",
        "/playground/main.js": "text/javascript",
        "/playground/style.css": "text/css",
    }.items():
        response = server.client.get(path)
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith(media_type)
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        known = {"If-None-Match": response.headers["ETag"]}
        assert server.client.get(path, headers=known).status_code == 304
        assert server.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "", "../main.py", "%2e%2e/main.py", "..%2fmain.py", "/etc/passwd", "vendor", "vendor/../../main.py"],
)
def test_no_path_leads_out_of_the_known_files(path: str, server: LocalServer) -> None:
    # httpx would normalize the path.
    body = subprocess.run(
        ["curl", "-s", "--path-as-is", f"{server.url}/playground/{path}"], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(body)["error"]["type"] == "not_found"


def test_it_can_be_disabled(encoder: Encoder) -> None:
    with LocalServer(encoder, playground=False) as server:
        assert server.client.get("/").status_code == 404
        assert server.client.get("/playground/main.js").status_code == 404


def test_the_licence_of_the_vendored_library_is_included() -> None:
    library = (PLAYGROUND / "vendor" / "chart.umd.min.js").read_text()
    licences = (PLAYGROUND / "vendor" / "LICENSES.txt").read_text()
    for name, marker in (("chart.js", r"Chart\.js v"), ("@kurkle/color", "@kurkle/color v")):
        version = re.search(marker + r"([\d.]+)", library)
        assert version is not None
        assert f"{name} {version[1]}" in licences
    assert licences.count("Permission is hereby granted") == 2


def test_the_screenshots_are_small() -> None:
    for name in ("playground", "playground-search"):
        assert (ROOT / "docs" / "assets" / f"{name}.png").stat().st_size <= 350_000
