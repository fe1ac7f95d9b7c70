"""The client of a service, when the request itself is invalid."""

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


def test_a_key_that_no_header_takes_is_not_tried_again(server: LocalServer) -> None:
    """Nor does the message quote it. A trailing line break is dropped."""
    assert ask(server.url, "secret\n")
    with pytest.raises(CommandError, match="cannot be called: the key") as refused:
        ask(server.url, "sec\nret")
    assert "ret" not in str(refused.value)
