"""`l2v export`."""

import logging
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from app.settings import ModelSettings


class Export(ModelSettings):
    """Merge base and adapters and write the encoder as a folder of its own.

    Examples:
        l2v export --model mistral-7b-supervised merged
        l2v serve --model ./merged
    """

    out: CliPositionalArg[Path] = Field(description="The new folder")

    def cli_cmd(self) -> None:
        from app.commands.loading import encoder_for
        from models.export import export

        logging.basicConfig(level="INFO", format="%(message)s")
        export(encoder_for(self, packed=False), self.out)
        print(f"wrote {self.out}: serve it with `l2v serve --model {self.out}`")
