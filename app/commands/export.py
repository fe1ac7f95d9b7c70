"""`l2v export`."""

import logging
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import CliPositionalArg

from l2v.models.settings import ModelSettings
from l2v.models.types import ROUNDED, DType


class Export(ModelSettings):
    """Merge base and adapters and write the encoder as a folder of its own.

    Examples:
        l2v export --model mistral-7b-supervised merged
        l2v serve --model ./merged
    """

    out: CliPositionalArg[Path] = Field(description="The new folder")

    @field_validator("dtype")
    @classmethod
    def _can_be_written(cls, value: DType) -> DType:
        if value in ROUNDED:
            raise ValueError(f"{value} is made when a model is loaded: export it in another dtype")
        return value

    def cli_cmd(self) -> None:
        from l2v.app.commands.loading import encoder_for
        from l2v.models.export import check_free, export

        logging.basicConfig(level="INFO", format="%(message)s")
        check_free(self.out)  # before minutes are spent on loading
        export(encoder_for(self, packed=False), self.out)
        print(f"wrote {self.out}: serve it with `l2v serve --model {self.out}`")
