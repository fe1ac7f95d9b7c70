"""The settings of commands that use one encoder: the base, or one of the adapters on top of it."""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from l2v.app.bulk.errors import UsageError
from l2v.models.settings import ModelSettings

if TYPE_CHECKING:
    from l2v.models.encoder import Encoder


class ChoiceSettings(ModelSettings):
    """Which of several encoders to use."""

    model_name: str | None = Field(
        None, description="Which adapter of --lora-modules to merge into the base; with --url, which model to use"
    )

    @property
    def chosen_adapters(self) -> tuple[str, ...]:
        """The adapters to merge. Raises `UsageError` if no model is named `model_name`."""
        from l2v.models.sources import label

        names = [label(self.model), *self.lora_modules]
        if self.model_name in self.lora_modules:
            return (*self.adapters, self.lora_modules[self.model_name])
        if self.model_name in (None, names[0]):
            return self.adapters
        raise UsageError(f"--model-name: there is no model {self.model_name}; models: {', '.join(names)}")

    @property
    def chosen_name(self) -> str:
        """The name of the encoder to use."""
        from l2v.models.sources import label

        return self.model_name or label(self.model)

    def load_chosen(self, **overrides: Any) -> "Encoder":
        """Loads the encoder to use, but no other adapter of `lora_modules`. Raises `ModelError` or `UsageError`.

        Args:
            overrides: arguments of `models.load`.
        """
        return self.load(adapters=self.chosen_adapters, lora_modules={}, **overrides)
