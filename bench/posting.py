"""Requests to a server, from a number of clients that each wait for their answer before they send the next."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

JSON = {"Content-Type": "application/json"}


def body(texts: Sequence[str]) -> bytes:
    """As OpenAI's embeddings want it; what is too long is to be cut, which is the only way of others."""
    return json.dumps({"model": "any", "input": list(texts), "truncate": True}).encode()


def post(url: str, bodies: Sequence[bytes], clients: int) -> list[httpx.Response]:
    """The answers, in the order of the bodies; nothing of them is parsed. Raises `HTTPError` for a refusal."""
    with httpx.Client(timeout=600, limits=httpx.Limits(max_connections=clients)) as client:

        def send(content: bytes) -> httpx.Response:
            return client.post(url, content=content, headers=JSON).raise_for_status()

        with ThreadPoolExecutor(clients) as pool:
            return list(pool.map(send, bodies))
