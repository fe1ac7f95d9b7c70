"""The command; see `Demo`."""

import logging
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg

from training.demo.stages import Steps, make, publish


class Demo(BaseSettings, cli_kebab_case=True):
    """Make the built-in model: a small Llama from scratch, then MNTP, SimCSE and supervised on top of it.

    A run that was cut off goes on where it stood.
    """

    data: CliPositionalArg[Path] = Field(description="Folder with text/, pairs/ and sts/ (see docs/DEMO_MODEL.md)")
    work: Path = Field(Path("demo"), description="Folder for all that is made on the way")
    out: Path = Field(Path("models/demo"), description="Folder for the stack, in place of what is there")

    def cli_cmd(self) -> None:
        logging.basicConfig(format="%(asctime)s %(message)s")
        logging.getLogger("training").setLevel("INFO")
        make(self.data, self.work, Steps())
        publish(self.work, self.out)


if __name__ == "__main__":
    CliApp.run(Demo)
