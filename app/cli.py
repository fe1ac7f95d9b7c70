"""The command `l2v`: its subcommands, its parser and its error handling."""

import inspect
import os
import sys
from argparse import ArgumentParser
from typing import Any, Literal

import shtab
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    CliSubCommand,
    SettingsConfigDict,
)
from rich_argparse import RawDescriptionRichHelpFormatter

from l2v.app import __version__
from l2v.app.bulk.errors import CommandError
from l2v.app.commands import flags
from l2v.app.commands.check import Check
from l2v.app.commands.embed import Embed
from l2v.app.commands.evaluate import Evaluate
from l2v.app.commands.export import Export
from l2v.app.commands.info import Info
from l2v.app.commands.serve import Serve
from l2v.app.commands.similarity import Similarity
from l2v.app.commands.tokenize import Tokenize
from l2v.app.commands.train import Train
from l2v.models.errors import InputError, ModelError
from l2v.models.settings import PREFIX


class Help(RawDescriptionRichHelpFormatter):
    """Formats the help. Keeps line breaks in docstrings, and prints brackets instead of reading them as markup."""

    text_markup = help_markup = False

    def add_text(self, text: Any) -> None:
        super().add_text(inspect.cleandoc(text) if isinstance(text, str) else text)


class Completion(BaseModel):
    """Print a completion script for a shell.

    Examples:
        l2v completion bash > ~/.local/share/bash-completion/completions/l2v
        l2v completion zsh > ~/.zfunc/_l2v
    """

    shell: CliPositionalArg[Literal["bash", "zsh", "tcsh"]] = Field(description="Shell to print the script for")

    def cli_cmd(self) -> None:
        print(shtab.complete(source().root_parser, self.shell))


class L2v(BaseSettings):
    """LLM2Vec embeddings: serve them, compute them for files, and inspect them."""

    model_config = SettingsConfigDict(
        cli_prog_name="l2v",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_enforce_required=True,
        cli_shortcuts={"as-json": "json"},
    )

    serve: CliSubCommand[Serve] = Field(description="Serve an encoder over HTTP")
    check: CliSubCommand[Check] = Field(description="Verify the configured model")
    embed: CliSubCommand[Embed] = Field(description="Embed a file of texts")
    similarity: CliSubCommand[Similarity] = Field(description="Rank documents by similarity to a query")
    info: CliSubCommand[Info] = Field(description="Describe a model")
    tokenize: CliSubCommand[Tokenize] = Field(description="Show the tokens of a text, and which of them are pooled")
    export: CliSubCommand[Export] = Field(description="Write the merged encoder to a folder")
    train: CliSubCommand[Train] = Field(description="Train an encoder from a decoder")
    evaluate: CliSubCommand[Evaluate] = Field(description="Score an encoder on MTEB tasks")
    completion: CliSubCommand[Completion] = Field(description="Print a completion script for a shell")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def source() -> CliSettingsSource[ArgumentParser]:
    """The parser of the command line, as a source of settings for pydantic-settings."""
    made: CliSettingsSource[ArgumentParser] = CliSettingsSource(
        L2v,
        cli_parse_none_str=flags.NONE,
        parse_args_method=flags.parse,
        add_argument_method=flags.add_argument,
        formatter_class=Help,
    )
    made.root_parser.add_argument("--version", action="version", version=f"l2v {__version__}")
    flags.shorten_usage(made.root_parser)
    return made


def main() -> None:
    """Run the command. If it fails, print why and exit with status 1 or 2."""
    command_line = source()
    try:
        CliApp.run(L2v, cli_settings_source=command_line)
    except ValidationError as error:
        flags.command_parser(command_line.root_parser, sys.argv[1:]).print_usage(sys.stderr)
        print(*map(_describe, error.errors()), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None
    except (CommandError, InputError, ModelError) as error:
        if (status := getattr(error, "status", 1)) == 1:
            # Python prints the message when it exits with status 1, so after progress bars have closed.
            raise SystemExit(f"l2v: {error}") from None
        print(f"l2v: {error}", file=sys.stderr)
        raise SystemExit(status) from None
    except BrokenPipeError:
        # The reader of the output, such as `head`, has exited. Redirect stdout, or Python's flush at exit fails too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _describe(problem: ErrorDetails) -> str:
    """Describe an invalid setting, with its flag and variable unless the error concerns several settings."""
    name, message = str(*problem["loc"][-1:]), problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], dict) or not name.islower():
        return f"l2v: {message}"
    return f"l2v: --{name.replace('_', '-')} ({PREFIX}{name.upper()}): {message}"


if __name__ == "__main__":
    main()
