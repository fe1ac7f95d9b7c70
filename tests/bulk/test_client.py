"""The client of a service, where the request itself is at fault."""

import anyio
import pytest

from l2v.app.bulk.client import Client
from l2v.app.bulk.errors import BulkError
from tests.serving import LocalServer


def ask(url: str, key: str) -> object:
    async def call() -> object:
        client = Client(url, key, 60, lambda message: None)
        try:
            return await client.call("GET", "info")
        finally:
            await client.close()

    return anyio.run(call)


def test_a_key_that_no_header_takes_is_not_tried_again(server: LocalServer) -> None:
    """And is not quoted; the end of a line behind it is no part of it."""
    assert ask(server.url, "secret\n")
    with pytest.raises(BulkError, match="cannot be asked: the key") as refused:
        ask(server.url, "sec\nret")
    assert "ret" not in str(refused.value)
