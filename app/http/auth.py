"""Bearer keys: which paths want one, and whether a caller's is among them."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers

from l2v.app.http.errors import UnauthorizedError

# What probes and browsers read without a key, and what does only unless it is protected. A folder ends in a slash.
_OPEN = ("/", "/health", "/ready", "/tei/health", "/tei/ping", "/playground/")
_METRICS = ("/metrics", "/tei/metrics")
_DOCS = ("/docs", "/docs/", "/openapi.json")


class Keys:
    """The keys that open the service.

    Args:
        keys: any of them opens it; none leave it open.
        protect_metrics: whether the metrics want a key too.
        protect_docs: whether the description of the API does.
    """

    def __init__(self, keys: Sequence[str], protect_metrics: bool, protect_docs: bool) -> None:
        # Their digests are of one length, so that the time of a comparison does not tell a key's.
        self._digests = [_digest(key.encode()) for key in keys]
        self._open = (*_OPEN, *(() if protect_metrics else _METRICS), *(() if protect_docs else _DOCS))

    def guard(self, path: str) -> bool:
        """Whether the path wants a key."""
        return bool(self._digests) and not any(
            path == name or (len(name) > 1 and name.endswith("/") and path.startswith(name)) for name in self._open
        )

    def check(self, path: str, headers: Headers) -> None:
        """Raises `UnauthorizedError` where the path wants a key and the headers bring none of ours."""
        if not self.guard(path):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        digest = _digest(given.strip().encode("latin-1"))
        # Every key is compared, each in constant time, so that timing tells nothing.
        matches = [hmac.compare_digest(digest, ours) for ours in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise UnauthorizedError(
                "give a valid key as `Authorization: Bearer KEY`", "authorization", {"WWW-Authenticate": "Bearer"}
            )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
