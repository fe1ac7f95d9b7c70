"""Requests to a server, from a number of clients that each wait for their answer before they send the next."""

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import urllib3

_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        seconds: from the request's first byte to the answer's last.
        headers: by names of any case.
        content: the body, not parsed.
    """

    seconds: float
    headers: Mapping[str, str]
    content: bytes


def body(texts: Sequence[str]) -> bytes:
    """As OpenAI's embeddings want it; what is too long is to be cut, which is the only way of others."""
    return json.dumps({"model": "any", "input": list(texts), "truncate": True}).encode()


def post(url: str, bodies: Sequence[bytes], clients: int) -> list[Answer]:
    """The answers, in the order of the bodies.

    By urllib3, as it takes the least time of the machine that the server runs on: httpx takes a millisecond and a half.

    Raises:
        urllib3.exceptions.HTTPError: if there is none.
        RuntimeError: for a refusal.
    """
    with urllib3.PoolManager(maxsize=clients, block=True, timeout=600, retries=False) as pool:

        def send(content: bytes) -> Answer:
            started = time.perf_counter()
            response = pool.request("POST", url, body=content, headers=_JSON)
            answer = Answer(time.perf_counter() - started, response.headers, response.data)
            if response.status != 200:
                raise RuntimeError(f"{url} answered {response.status}")
            return answer

        with ThreadPoolExecutor(clients) as threads:
            return list(threads.map(send, bodies))
