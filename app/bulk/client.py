"""An HTTP client of the service that retries while the service is busy or unreachable."""

import random
import re
import time
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import tenacity

from l2v.app.bulk.errors import CommandError

TOO_LARGE, TOO_LONG = 413, 504
_RETRIED = (429, 502, 503, TOO_LONG)
_LONGEST_WAIT = 60.0
# The text of a header `Warning` like `299 - "text"`.
_WARNING = re.compile(r'"(.*)"')


class RejectedError(Exception):
    """The service rejects the request; a retry cannot help.

    Attributes:
        status: the status of the response.
        param: the part of the request at fault, like `inputs[3].text`.
    """

    def __init__(self, status: int, message: str, param: str | None) -> None:
        super().__init__(message)
        self.status, self.param = status, param


class _BusyError(Exception):
    """The service may accept the request later.

    Attributes:
        after: the header Retry-After in seconds, or 0.
        down: whether the service may have been restarted, which it has not if it is only overloaded.
    """

    def __init__(self, reason: str, after: float = 0.0, *, down: bool = True) -> None:
        super().__init__(reason)
        self.after, self.down = after, down


class Client:
    """A client of one service, for use in one event loop.

    Args:
        url: the service's address, without the path of an endpoint.
        key: the bearer key, if the service requires one.
        retry_for: seconds for which to retry a request.
        note: a function that gets a message while the service is unavailable, and "" afterwards.

    Attributes:
        name: the name of the service in messages.
        warning: the text of the last successful response's header `Warning`; "" if it has no such header.
    """

    def __init__(self, url: str, key: str | None, retry_for: float, note: Callable[[str], None] | None = None) -> None:
        try:
            address = httpx.URL(url.rstrip("/") + "/")
        except httpx.InvalidURL:
            address = httpx.URL()
        if address.scheme not in ("http", "https") or not address.host:
            raise CommandError("--url: must be the address of a service, like http://localhost:8080")
        self.name = f"the service at {address.host}{f':{address.port}' if address.port else ''}"
        self.warning = ""
        self._retry_for, self._note = retry_for, note or (lambda message: None)
        self._http = httpx.AsyncClient(
            base_url=address,
            # A key read from a file often ends with a line break.
            headers=httpx.Headers({"Authorization": f"Bearer {key.strip()}"} if key else {}, encoding="utf-8"),
            timeout=httpx.Timeout(300, connect=10, pool=None),
            limits=httpx.Limits(max_connections=None),
        )

    async def call(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        *,
        divisible: bool = False,
        on_return: Callable[[], Awaitable[None]] | None = None,
    ) -> Any:
        """Send a request and return the JSON of the response.

        Args:
            method: the HTTP method.
            path: the path, relative to the service's address.
            content: the JSON body.
            divisible: whether the caller can divide a request that takes too long. If so, `call` raises
                `RejectedError` for such a request instead of retrying.
            on_return: called before the response is returned if the service was down meanwhile.

        Raises:
            RejectedError: the service rejects the request.
            CommandError: the service cannot be reached, is not l2v, or requires a valid key.
        """
        first_failure: float | None = None
        was_down = False

        def stop(state: tenacity.RetryCallState) -> bool:
            nonlocal first_failure
            failed = state.outcome_timestamp or 0.0
            first_failure = failed if first_failure is None else first_failure
            return failed - first_failure >= self._retry_for

        def note(state: tenacity.RetryCallState) -> None:
            nonlocal was_down
            error = state.outcome and state.outcome.exception()
            was_down |= isinstance(error, _BusyError) and error.down
            self._note(f"{self.name} {_reason(state)}; retrying")

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_BusyError), wait=_wait, stop=stop, before_sleep=note, reraise=True
        )
        try:
            body: Any = await attempts(self._once, method, path, content, divisible)
        except _BusyError as error:
            raise CommandError(f"{self.name} {error}; gave up after {self._retry_for:g} s (--retry-for)") from None
        self._note("")
        if was_down and on_return:
            await on_return()
        return body

    async def close(self) -> None:
        await self._http.aclose()

    async def _once(self, method: str, path: str, content: bytes | None, divisible: bool) -> Any:
        headers = {"Content-Type": "application/json"} if content is not None else {}
        try:
            response = await self._http.request(method, path, content=content, headers=headers)
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol):  # their messages may quote the key
            raise CommandError(f"{self.name} cannot be called: the key or a URL is not valid in HTTP") from None
        except httpx.TransportError as error:
            raise _BusyError(f"cannot be reached ({type(error).__name__})") from None
        if response.status_code == TOO_LONG and divisible:
            raise RejectedError(TOO_LONG, "the request takes too long", None)
        if response.status_code in _RETRIED:
            down = response.status_code != 429
            raise _BusyError(f"returned {response.status_code}", _retry_after(response), down=down)
        try:
            body = response.json()
            if response.is_success:
                self.warning = "".join(_WARNING.findall(response.headers.get("Warning", "")))
                return body
            detail = body["error"]
            param = detail["param"]
            message = str(detail["message"]).removeprefix(f"Invalid value for '{param}': ").removesuffix(".")
        except (ValueError, KeyError, TypeError):
            if response.status_code == TOO_LARGE:  # a proxy's response, whose body is HTML
                raise RejectedError(TOO_LARGE, "the request is too large", None) from None
            if response.status_code == 500:  # the response of Ray's proxy if a replica has ended
                raise _BusyError("returned 500") from None
            raise CommandError(
                f"{self.name} is not an l2v service: it returned {response.status_code} with an unexpected body"
            ) from None
        if response.status_code == 401:
            raise CommandError(f"{self.name} requires a key: pass --api-key or set L2V_API_KEY")
        raise RejectedError(response.status_code, message, param)


def _reason(state: tenacity.RetryCallState) -> str:
    assert state.outcome is not None
    return str(state.outcome.exception())


_backoff = tenacity.wait_random_exponential(multiplier=0.5, max=30)


def _wait(state: tenacity.RetryCallState) -> float:
    """The seconds that the service asks for, else a random time that grows with each attempt."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _BusyError) and error.after:
        return min(error.after, _LONGEST_WAIT) + random.random()  # noqa: S311 - clients should not all retry at once
    return _backoff(state)


def _retry_after(response: httpx.Response) -> float:
    """The seconds to wait, from the header Retry-After, which holds a number or a date; 0 if the header is invalid."""
    value = response.headers.get("Retry-After", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
