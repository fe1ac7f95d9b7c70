"""`l2v train`: the service's way to the recipe, which is taken only when it is asked for."""

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliSubCommand

from l2v.training.recipes import Mntp, Simcse, Supervised


class Train(BaseModel):
    """Make an encoder of a decoder: one stage of the recipe, each an adapter.

    Examples:
        l2v train mntp my-mntp --model meta-llama/Llama-3.2-1B --data texts/
        l2v train supervised my-encoder --model meta-llama/Llama-3.2-1B --adapters my-mntp --data pairs.jsonl
        l2v serve --model meta-llama/Llama-3.2-1B --adapters my-mntp,my-encoder
    """

    mntp: CliSubCommand[Mntp] = Field(description="Masked next token prediction: learn to look ahead")
    simcse: CliSubCommand[Simcse] = Field(description="Contrastive learning on texts alone")
    supervised: CliSubCommand[Supervised] = Field(description="Contrastive learning on pairs")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)
