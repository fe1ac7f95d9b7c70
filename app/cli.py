"""The command `l2v`: its subcommands, its parser and its error handling."""

import inspect
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
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

from l2v.app.bulk.errors import CommandError
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

# The argument that pydantic-settings reads as null. By default, it would be the text `None`.
_NONE = "\0"
# Arguments that shells complete with file names.
_FILES = ("Path", "INPUT", "OUTPUT", "OUT")


class Help(RawDescriptionRichHelpFormatter):
    """Prints docstrings with their line breaks."""

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
    tokenize: CliSubCommand[Tokenize] = Field(description="Show the tokens of a text and which are pooled")
    export: CliSubCommand[Export] = Field(description="Write the merged encoder to a folder")
    train: CliSubCommand[Train] = Field(description="Train an encoder from a decoder")
    evaluate: CliSubCommand[Evaluate] = Field(description="Score an encoder on MTEB tasks")
    completion: CliSubCommand[Completion] = Field(description="Print a completion script for a shell")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def source() -> CliSettingsSource[ArgumentParser]:
    """The command line as a source of settings."""
    return CliSettingsSource(
        L2v, cli_parse_none_str=_NONE, parse_args_method=_parse, add_argument_method=_add_argument, formatter_class=Help
    )


def main() -> None:
    """Run the command. An error prints one sentence and exits with status 1 or 2."""
    try:
        CliApp.run(L2v, cli_settings_source=source())
    except ValidationError as error:
        print(*map(_describe, error.errors()), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None
    except (CommandError, InputError, ModelError) as error:
        if (status := getattr(error, "status", 1)) == 1:
            # Python prints this at exit, after progress bars have closed.
            raise SystemExit(f"l2v: {error}") from None
        print(f"l2v: {error}", file=sys.stderr)
        raise SystemExit(status) from None
    except BrokenPipeError:
        # The reader of the output, such as `head`, has exited. Python flushes stdout at exit and would fail there too.
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


def _parse(parser: ArgumentParser, args: Sequence[str] | None = None, namespace: Namespace | None = None) -> Namespace:
    """Parse the arguments. Documents become a JSON list, since pydantic-settings would split each one at its commas."""
    parsed = ArgumentParser.parse_args(parser, args, namespace)
    if documents := getattr(parsed, "similarity.documents", None):
        setattr(parsed, "similarity.documents", json.dumps(documents))
    return parsed


def _add_argument(parser: ArgumentParser, *names: str, **options: Any) -> None:
    options["help"] = options["help"].removesuffix(f" (default: {_NONE})")
    action: Any = ArgumentParser.add_argument(parser, *names, **options)
    if options.get("metavar") in _FILES:
        action.complete = shtab.FILE


if __name__ == "__main__":
    main()
