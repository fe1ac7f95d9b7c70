"""API keys: several keys, keys from a file, constant-time comparison, and which paths require a key."""

import hmac
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.datastructures import Headers

from l2v.app.http.auth import Auth
from l2v.app.http.errors import UnauthorizedError
from l2v.app.http.surfaces import Target, native
from l2v.app.settings import Settings
from l2v.models import Encoder
from tests.serving import LocalServer, ServerProcess

OPEN = {"/", "/health", "/ready", "/tei/health", "/tei/ping", "/playground/main.js"}
METRICS = {"/metrics", "/tei/metrics"}
DOCS = {"/docs", "/docs/start.js", "/openapi.json"}
MISSING = {"/nothing", "/docsx", "/healthx"}
KEYED = MISSING | {"/info", "/prompts", "/v1/models", "/v1/models/demo", "/tei/info"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("metrics", "docs"), [(False, False), (True, False), (False, True), (True, True)])
def test_which_paths_require_a_key(encoder: Encoder, metrics: bool, docs: bool) -> None:
    with LocalServer(encoder, api_keys="one,two", protect_metrics=metrics, protect_docs=docs) as server:
        closed = KEYED | (METRICS if metrics else set()) | (DOCS if docs else set())
        for path in OPEN | METRICS | DOCS | KEYED:
            for headers in (
                {},
                bearer("three"),
                {"Authorization": "Bearer"},
                bearer("on"),
                bearer("onee"),
                {"Authorization": "Basic one"},
            ):
                rejected = server.client.get(path, headers=headers).status_code == 401
                assert rejected == (path in closed), path
            for key in ("one", "two"):
                expected = 404 if path in MISSING else 200
                assert server.client.get(path, headers=bearer(key)).status_code == expected
        document = server.client.get("/openapi.json", headers=bearer("one")).json()
        secured = {
            path for path, operations in document["paths"].items() for it in operations.values() if "security" in it
        }
        assert {path for path in document["paths"] if path in closed} <= secured
        assert not secured & ((OPEN | METRICS | DOCS) - closed)


def test_a_401_does_not_read_the_body_or_reveal_a_key(encoder: Encoder) -> None:
    with LocalServer(encoder, api_keys="sesame") as server:
        rejected = server.client.post("/embed", content=b"{", headers=bearer("swordfish"))
        assert rejected.status_code == 401
        assert rejected.headers["WWW-Authenticate"] == "Bearer"
        assert rejected.headers["Connection"] == "close"
        assert rejected.json()["error"]["param"] == "authorization"
        assert "sesame" not in rejected.text
        assert "swordfish" not in rejected.text


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """hmac.compare_digest compares every key, even after a match, and always the same number of bytes."""
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def recording(left: Any, right: Any) -> bool:
        compared.append((left, right))
        return real(left, right)

    monkeypatch.setattr(hmac, "compare_digest", recording)
    auth = Auth(Settings(api_keys="short,a much longer key than the others,third"))
    target = Target("/embed", native())
    for given, good in (
        ("short", True),
        ("third", True),
        ("s", False),
        ("shorx", False),
        ("x" * 5000, False),
        ("é", False),
    ):
        compared.clear()
        headers = Headers(raw=[(b"authorization", f"Bearer {given}".encode())])
        if good:
            auth.check(target, headers)
        else:
            with pytest.raises(UnauthorizedError):
                auth.check(target, headers)
        assert len(compared) == 3
        assert {len(digest) for pair in compared for digest in pair} == {32}


def test_keys_can_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# the keys of the team\nfrom-file\n\n  # one more:\n  schlüssel  \r\n")
    with ServerProcess("--api-keys-file", str(file), L2V_API_KEYS="from-variable") as server:
        server.wait_ready()
        for key in ("from-file", "schlüssel", "from-variable"):
            headers = [("Authorization", f"Bearer {key}".encode())]
            assert server.client.get("/info", headers=headers).status_code == 200  # type: ignore[arg-type]
        for key in ("other", "# the keys of the team", "#"):
            assert server.client.get("/info", headers=bearer(key)).status_code == 401
        bodies = [
            server.client.get(path, headers=bearer("from-file")).text for path in ("/info", "/metrics", "/tei/info")
        ]
        for secret in ("from-file", "schlüssel", "from-variable", str(file)):
            assert not [body for body in bodies if secret in body]
            assert secret not in server.log


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"\n \n", "contains no key"),
        (b"# none yet\n", "contains no key"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_file_without_keys_is_rejected(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValidationError, match=reason):
        Settings(api_keys_file=file)


@pytest.mark.parametrize("name", ["protect_metrics", "protect_docs"])
def test_protection_without_a_key_is_rejected(name: str) -> None:
    with pytest.raises(ValidationError, match="require api_keys"):
        Settings(**{name: True})
