"""Bearer keys."""

import hashlib
import hmac

from starlette.datastructures import Headers

from l2v.app.http.errors import UnauthorizedError
from l2v.app.http.surfaces import Access, Target
from l2v.app.settings import Settings


class Auth:
    """Checks the key of a request.

    Attributes:
        enabled: whether the settings contain keys; if not, no request requires a key.
    """

    def __init__(self, settings: Settings) -> None:
        # All digests have the same length, so the time of a comparison does not reveal the length of a key.
        self._digests = [hashlib.sha256(key.encode()).digest() for key in settings.read_keys()]
        self.enabled = bool(self._digests)
        protected = {Access.METRICS: settings.protect_metrics, Access.DOCS: settings.protect_docs}
        self._keyless = {level for level in Access if level is not Access.KEY and not protected.get(level)}

    def requires_key(self, target: Target) -> bool:
        return self.enabled and target.access not in self._keyless

    def check(self, target: Target, headers: Headers) -> None:
        """Raises `UnauthorizedError` if the path requires a key and the headers contain no valid key."""
        if not self.requires_key(target):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1")).digest()
        # Compare every key, each in constant time, so that timing reveals nothing.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        if scheme.lower() != "bearer" or not any(matches):
            raise UnauthorizedError("send a valid key as `Authorization: Bearer KEY`", "authorization")
