"""`l2v export`."""

import logging
from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.choice import ChoiceSettings
from l2v.app.bulk.errors import UsageError
from l2v.models.new_folder import check_free
from l2v.models.types import QUANTIZED


class Export(ChoiceSettings):
    """Merge the base model and its adapters, and write the encoder to a new folder.

    Examples:
        l2v export --model mistral-7b-supervised merged
        l2v serve --model ./merged
        l2v export --lora-modules law=my/law --model-name law merged-law
    """

    out: CliPositionalArg[Path] = Field(description="New folder to write")

    def cli_cmd(self) -> None:
        self.announce()
        if self.dtype in QUANTIZED:
            raise UsageError(f"--dtype: {self.dtype} weights cannot be exported, since they are quantized at load")
        if self.lora_modules and self.model_name is None:
            names = ", ".join([self.chosen_name, *self.lora_modules])
            raise UsageError(f"an export holds one encoder: choose it with --model-name ({names})")
        logging.basicConfig(level="INFO", format="%(message)s")
        check_free(self.out)  # before loading the model, since loading may take minutes
        encoder = self.load_chosen(prepack=False)
        from l2v.models.export import export  # imports torch, which `load` has configured

        export(encoder, self.out)
        print(f"wrote {self.out}: serve it with `l2v serve --model {self.out}`")
