"""`python -m examples.demo_model --help`."""

import logging
import sys
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand

from examples.demo_model.stages import Steps, make, publish
from l2v.models.known import record_demo
from l2v.models.published import DEMO
from l2v.training.errors import TrainingError


class _Folders(BaseModel):
    """What both commands take."""

    data: CliPositionalArg[Path] = Field(description="Folder with text/, pairs/ and sts/ (see docs/DEMO_MODEL.md)")
    work: Path = Field(Path("demo"), description="Folder for all that is made on the way")
    out: Path = Field(Path("models/demo"), description="Folder of the stack")


class Make(_Folders):
    """A small Llama from scratch, then MNTP, SimCSE and supervised on top of it; goes on where it was cut off."""

    def cli_cmd(self) -> None:
        make(self.data, self.work, Steps())
        publish(self.work, self.out)
        if self.out.resolve() == DEMO:
            record_demo()


class Report(_Folders):
    """Scores of every stage, and the curves, into docs/DEMO_MODEL.md."""

    def cli_cmd(self) -> None:
        # Only this needs what compares words.
        from examples.demo_model.report import write

        write(self.data, self.work, self.out)


class Demo(BaseModel):
    """The built-in model: make it, and say how good it is."""

    make: CliSubCommand[Make] = Field(description="Make it")
    report: CliSubCommand[Report] = Field(description="Score it")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("l2v.training").setLevel("INFO")
    try:
        CliApp.run(Demo)
    except TrainingError as error:
        sys.exit(f"examples.demo_model: {error}")
