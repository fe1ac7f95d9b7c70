"""The commands `make`, `report` and `adversarial`: `python -m examples.demo_model --help`."""

import logging
import sys
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand

from examples.demo_model.record import record
from examples.demo_model.stages import Steps, make, publish
from l2v.models.published import DEMO
from l2v.training.errors import TrainingError


class _Folders(BaseModel):
    """The arguments of both commands."""

    data: CliPositionalArg[Path] = Field(description="Folder with text/, pairs/ and sts/ (see docs/demo-model.md)")
    work: Path = Field(Path("demo"), description="Folder for intermediate results")
    out: Path = Field(Path("models/demo"), description="Folder of the finished stack")


class MakeCommand(_Folders):
    """Train a small Llama from scratch, then MNTP, SimCSE and supervised on top. An interrupted run resumes."""

    def cli_cmd(self) -> None:
        make(self.data, self.work, Steps())
        publish(self.work, self.out)
        if self.out.resolve() == DEMO.resolve():
            record()


class ReportCommand(_Folders):
    """Write the scores of every stage and the learning curves to docs/demo-model.md."""

    def cli_cmd(self) -> None:
        from examples.demo_model.report import write  # lazily: only this command needs bm25s and scikit-learn

        write(self.data, self.work, self.out)


class AdversarialCommand(BaseModel):
    """Write the scores of the finished stack on adversarial triplets to docs/demo-model.md."""

    out: Path = Field(Path("models/demo"), description="Folder of the finished stack")

    def cli_cmd(self) -> None:
        from examples.demo_model.report import write_adversarial

        write_adversarial(self.out)


class DemoCommand(BaseModel):
    """Make the built-in model, and report how good it is. Run it from the root of the repository."""

    make: CliSubCommand[MakeCommand] = Field(description="Train all stages and write the stack")
    report: CliSubCommand[ReportCommand] = Field(description="Score all stages and update docs/demo-model.md")
    adversarial: CliSubCommand[AdversarialCommand] = Field(description="Update the table of adversarial triplets alone")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s")
    for name in ("examples.demo_model", "l2v.training"):
        logging.getLogger(name).setLevel("INFO")
    try:
        CliApp.run(DemoCommand)
    except TrainingError as error:
        sys.exit(f"examples.demo_model: {error}")
