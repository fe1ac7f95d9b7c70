"""The command `l2v`: its subcommands, how they are parsed, and how a mistake ends."""

import inspect
import json
import os
import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    CliSubCommand,
    SettingsConfigDict,
)
from rich_argparse import RawDescriptionRichHelpFormatter

from l2v.app.bulk.errors import BulkError
from l2v.app.commands.check import Check
from l2v.app.commands.embed import Embed
from l2v.app.commands.evaluate import Evaluate
from l2v.app.commands.export import Export
from l2v.app.commands.info import Info
from l2v.app.commands.serve import Serve
from l2v.app.commands.similarity import Similarity
from l2v.app.commands.tokenize import Tokenize
from l2v.app.commands.train import Train
from l2v.models.errors import ModelError
from l2v.models.settings import PREFIX

_FILES = {"input", "output", "skip-bad", "out"}


class Help(RawDescriptionRichHelpFormatter):
    """Coloured on a terminal, docstrings as they are written."""

    def add_text(self, text: Any) -> None:
        super().add_text(inspect.cleandoc(text) if isinstance(text, str) else text)


class Completion(BaseModel):
    """Print the shell's completion script.

    Examples:
        l2v completion bash > ~/.local/share/bash-completion/completions/l2v
        l2v completion zsh > ~/.zfunc/_l2v
    """

    shell: CliPositionalArg[Literal["bash", "zsh", "tcsh"]] = Field(description="Which shell")

    def cli_cmd(self) -> None:
        import shtab

        print(shtab.complete(_completable(parser()), self.shell))


class L2v(BaseSettings):
    """LLM2Vec embeddings: serve them, make them from files, look at them."""

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
    check: CliSubCommand[Check] = Field(description="Prove that the configured model may serve")
    embed: CliSubCommand[Embed] = Field(description="Embed a file of texts")
    similarity: CliSubCommand[Similarity] = Field(description="Compare a query with documents")
    info: CliSubCommand[Info] = Field(description="Say what a model is")
    tokenize: CliSubCommand[Tokenize] = Field(description="Show a text's tokens and which are pooled")
    export: CliSubCommand[Export] = Field(description="Write the merged encoder as a folder")
    train: CliSubCommand[Train] = Field(description="Make an encoder of a decoder")
    evaluate: CliSubCommand[Evaluate] = Field(description="Score an encoder on tasks of mteb")
    completion: CliSubCommand[Completion] = Field(description="Print the shell's completion script")

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def source() -> CliSettingsSource[Any]:
    """What parses the command line."""
    # Otherwise the text `None` would be taken for null.
    return CliSettingsSource(L2v, formatter_class=Help, parse_args_method=_parse, cli_parse_none_str="\0")


def parser() -> ArgumentParser:
    """The parser of all subcommands."""
    root = source().root_parser
    assert isinstance(root, ArgumentParser)
    return root


def main() -> None:
    """Runs the command; a mistake ends with one sentence and status 1 or 2."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    try:
        CliApp.run(L2v, cli_settings_source=source())
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][-1]) if problem["loc"] else ""
            # A whole command's settings may not go together, which is no matter of one flag.
            flag = name.islower() and not (problem["type"] == "value_error" and isinstance(problem["input"], dict))
            where = f"--{name.replace('_', '-')} ({PREFIX}{name.upper()}): " if flag else ""
            print(f"l2v: {where}{problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        raise SystemExit(2) from None
    except BulkError as error:
        print(f"l2v: {error}", file=sys.stderr)
        raise SystemExit(error.status) from None
    except ModelError as error:
        raise SystemExit(f"l2v: {error}") from None
    except BrokenPipeError:
        # Who read our output has gone, as `head` does; Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _parse(root: ArgumentParser, args: Sequence[str] | None = None, namespace: Namespace | None = None) -> Namespace:
    """Parses; a list of texts goes on as JSON, since pydantic-settings would divide each at its commas."""
    parsed = ArgumentParser.parse_args(root, args, namespace)
    for name, value in list(vars(parsed).items()):
        if name.endswith(".documents"):
            setattr(parsed, name, json.dumps(value))
    return parsed


def _completable(root: ArgumentParser) -> ArgumentParser:
    """The parser, with files offered where files are meant."""
    import shtab

    for group in root._actions:  # noqa: SLF001 - argparse has no other way in
        for sub in (group.choices or {}).values() if isinstance(group.choices, dict) else ():
            for action in sub._actions:  # noqa: SLF001
                if {action.dest.rpartition(".")[2], *(name.lstrip("-") for name in action.option_strings)} & _FILES:
                    action.complete = shtab.FILE
    return root


if __name__ == "__main__":
    main()
