"""Settings of the commands that load a model or use a running service."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from l2v.app.bulk.options import EmbedOptions
from l2v.models.settings import ModelSettings

if TYPE_CHECKING:
    from l2v.app.bulk.local import LocalEmbedder
    from l2v.app.bulk.remote import RemoteEmbedder


class ClientSettings(ModelSettings):
    """The model to load, or the address of a service to use instead."""

    url: str | None = Field(None, description="Use the service at this address; flags about the model have no effect")
    api_key: SecretStr | None = Field(None, description="Bearer key of the service; better set as L2V_API_KEY")
    retry_for: float = Field(300.0, gt=0, description="Seconds to retry while the service is busy or unreachable")
    max_batch_tokens: int | None = Field(
        None, ge=8, description="Token budget of one forward pass; default: 16384 on CUDA, 4096 on the CPU"
    )

    def open_embedder(
        self, options: EmbedOptions, concurrency: int = 4, note: Callable[[str], None] | None = None
    ) -> "LocalEmbedder | RemoteEmbedder":
        """The service at `url`, if given, else the model in this process.

        Args:
            options: how to embed.
            concurrency: requests to the service at a time.
            note: see `Client`.
        """
        if self.url:
            from l2v.app.bulk.remote import RemoteEmbedder

            key = self.api_key.get_secret_value() if self.api_key else None
            return RemoteEmbedder(self.url, key, options, concurrency, self.retry_for, note)
        from l2v.app.bulk.local import LocalEmbedder
        from l2v.app.commands.loading import load_encoder
        from l2v.models.batch import token_budget
        from l2v.models.sources import label

        encoder = load_encoder(self)
        return LocalEmbedder(encoder, label(self.model), options, self.max_batch_tokens or token_budget(encoder.device))
