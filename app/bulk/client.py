"""A running service, as a command talks to it: one request at a time or many, tried again while it is busy or away."""

import random
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import tenacity

from l2v.app.bulk.errors import BulkError

TOO_LARGE, TOO_LONG = 413, 504
_AGAIN = (429, 502, 503, TOO_LONG)
_LONGEST_WAIT = 60.0


class RefusedError(Exception):
    """The service says no, and would say so again.

    Attributes:
        status: of the answer.
        param: what in the request is at fault, like `inputs[3].text`.
    """

    def __init__(self, status: int, message: str, param: str | None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


class _BusyError(Exception):
    """The service may say yes later; `after` are the seconds that it asks for."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Client:
    """Requests to one address. Its methods are coroutines of one event loop.

    Args:
        url: of the service, without a path of the API.
        key: its bearer key, if it wants one.
        patience: seconds for which a request is tried again.
        note: told what is being waited for, and "" when the wait is over.
    """

    def __init__(self, url: str, key: str | None, patience: float, note: Callable[[str], None]) -> None:
        try:
            address = httpx.URL(url.rstrip("/") + "/")
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise BulkError("--url: must be the address of a service, like http://localhost:8080")
        self.name = f"the service at {address.host}{f':{address.port}' if address.port else ''}"
        self._patience, self._note = patience, note
        self._http = httpx.AsyncClient(
            base_url=address,
            # A key that is read from a file often ends with a line's end.
            headers=httpx.Headers({"Authorization": f"Bearer {key.strip()}"} if key else {}, encoding="utf-8"),
            timeout=httpx.Timeout(300, connect=10, pool=None),
            limits=httpx.Limits(max_connections=None),
        )

    async def call(self, method: str, path: str, content: bytes | None = None, *, divisible: bool = False) -> Any:
        """The answer's JSON.

        Args:
            method: of HTTP.
            path: behind the service's address.
            content: JSON.
            divisible: a request that takes too long is refused, as it could be asked in parts, rather than tried again.

        Raises:
            RefusedError: the service refuses.
            BulkError: it is not to be had, or is no such service.
        """
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_BusyError),
            wait=_wait,
            stop=tenacity.stop_after_delay(self._patience),
            before_sleep=lambda state: self._note(f"{self.name} {_reason(state)}; trying again"),
            reraise=True,
        )
        try:
            answer: Any = await attempts(self._once, method, path, content, divisible)
        except _BusyError as error:
            raise BulkError(f"{self.name} {error}, for {self._patience:g} s now (--retry-for)") from None
        self._note("")
        return answer

    async def close(self) -> None:
        await self._http.aclose()

    async def _once(self, method: str, path: str, content: bytes | None, divisible: bool) -> Any:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = await self._http.request(method, path, content=content, headers=headers)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):  # whose message may quote the key
            raise BulkError(f"{self.name} cannot be asked: the key or an address is none that HTTP allows") from None
        except httpx.TransportError as error:
            raise _BusyError(f"cannot be reached ({type(error).__name__})") from None
        if response.status_code == TOO_LONG and divisible:
            raise RefusedError(TOO_LONG, "the request takes too long", None)
        if response.status_code in _AGAIN:
            raise _BusyError(f"answers {response.status_code}", _retry_after(response))
        try:
            answer = response.json()
            if response.is_success:
                return answer
            detail = answer["error"]
            message, param = str(detail["message"]), detail["param"]
        except (ValueError, KeyError, TypeError):
            if response.status_code == TOO_LARGE:  # as a proxy says it, in HTML
                raise RefusedError(TOO_LARGE, "the request is too large", None) from None
            if response.status_code == 500:  # as Ray's proxy says of a replica that ended
                raise _BusyError("answers 500") from None
            raise BulkError(f"{self.name} answers {response.status_code}, and not as l2v does") from None
        if response.status_code == 401:
            raise BulkError(f"{self.name} wants a key: --api-key or L2V_API_KEY")
        raise RefusedError(response.status_code, message, param)


def _reason(state: tenacity.RetryCallState) -> str:
    assert state.outcome is not None
    return str(state.outcome.exception())


_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=30)


def _wait(state: tenacity.RetryCallState) -> float:
    """What the service asks for, and a growing random time where it asks for nothing."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _BusyError) and error.after:
        return min(error.after, _LONGEST_WAIT) + random.random()  # noqa: S311 - so that not all come back at once
    return _backoff(state)


def _retry_after(response: httpx.Response) -> float:
    """Seconds, from either form of the header."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
