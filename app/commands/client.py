"""What commands share that may run the model here or ask a running service."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field, SecretStr

from l2v.models.settings import ModelSettings

BatchTokens = Annotated[
    int | None,
    Field(ge=8, description="Token budget of one forward pass; where unset, 16384 on CUDA, 4096 on the CPU"),
]


class ClientSettings(ModelSettings):
    """A model to load, or the address of a service that has one."""

    url: str | None = Field(
        None, description="Ask the service at this address instead of loading a model; flags about the model do nothing"
    )
    api_key: SecretStr | None = Field(None, description="The service's bearer key; better given as L2V_API_KEY")
    retry_for: float = Field(300.0, gt=0, description="Seconds for which a service that is busy or away is tried again")

    @property
    def key(self) -> str | None:
        return self.api_key.get_secret_value() if self.api_key else None

    def ask(
        self, method: str, path: str, content: bytes | None = None, note: Callable[[str], None] = lambda message: None
    ) -> Any:
        """One request to the service; its refusal ends the command."""
        import anyio

        from l2v.app.bulk.client import Client, RefusedError
        from l2v.app.bulk.errors import BulkError

        async def call() -> Any:
            assert self.url is not None
            client = Client(self.url, self.key, self.retry_for, note)
            try:
                return await client.call(method, path, content)
            finally:
                await client.close()

        try:
            return anyio.run(call)
        except RefusedError as error:
            place = f" ({error.param})" if error.param else ""
            raise BulkError(f"the service refuses with {error.status}: {error}{place}") from None
