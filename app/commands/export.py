"""`l2v export`."""

import logging
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.errors import UsageError
from l2v.models.new_folder import check_free
from l2v.models.settings import ModelSettings
from l2v.models.types import QUANTIZED


class Export(ModelSettings):
    """Merge the base model and its adapters, and write the encoder to a new folder.

    Examples:
        l2v export --model mistral-7b-supervised merged
        l2v serve --model ./merged
    """

    out: CliPositionalArg[Path] = Field(description="New folder to write")

    def cli_cmd(self) -> None:
        self.announce()
        if self.dtype in QUANTIZED:
            raise UsageError(f"--dtype: {self.dtype} weights cannot be exported, since they are quantized at load")
        logging.basicConfig(level="INFO", format="%(message)s")
        check_free(self.out)  # before loading the model, which may take minutes
        encoder = self.load(prepack=False)
        from l2v.models.export import export  # imports torch, which `load` has configured

        export(encoder, self.out)
        print(f"wrote {self.out}: serve it with `l2v serve --model {self.out}`")
