"""`l2v train`."""

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliSubCommand

from l2v.training.recipes import Mntp, Simcse, Supervised


class Train(BaseModel):
    """Train an encoder from a decoder, one stage at a time. Each stage writes an adapter.

    Examples:
        l2v train mntp my-mntp --model meta-llama/Llama-3.2-1B --data texts/
        l2v train supervised my-encoder --model meta-llama/Llama-3.2-1B --adapters my-mntp --data pairs.jsonl
        l2v serve --model meta-llama/Llama-3.2-1B --adapters my-mntp,my-encoder
    """

    mntp: CliSubCommand[Mntp] = Field(
        description="Teach the decoder to use bidirectional attention, with masked next token prediction"
    )
    simcse: CliSubCommand[Simcse] = Field(description="Contrastive learning from texts")
    supervised: CliSubCommand[Supervised] = Field(description="Contrastive learning from pairs")

    def cli_cmd(self) -> None:
        from l2v.training.command import run

        if recipe := self.mntp or self.simcse or self.supervised:
            run(recipe)
        else:
            CliApp.run_subcommand(self)  # prints the usage and exits
