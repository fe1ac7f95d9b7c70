"""The client's error for a request that is not valid HTTP."""

import anyio
import pytest

from l2v.app.bulk.client import Client
from l2v.app.bulk.errors import CommandError
from tests.serving import LocalServer


def ask(url: str, key: str) -> object:
    async def call() -> object:
        client = Client(url, key, retry_for=60)
        try:
            return await client.call("GET", "info")
        finally:
            await client.close()

    return anyio.run(call)


def test_a_key_that_is_invalid_in_a_header_is_not_retried(server: LocalServer) -> None:
    """The message does not quote the key. A line break at its end is dropped."""
    assert ask(server.url, "secret\n")
    with pytest.raises(CommandError, match="cannot be called: the key") as refused:
        ask(server.url, "sec\nret")
    assert "ret" not in str(refused.value)
