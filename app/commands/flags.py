"""The flags of commands: their groups and types in the help, and the errors about unknown flags."""

import json
import re
import sys
from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import shtab

from l2v.app.bulk.settings import ClientSettings, RunSettings
from l2v.app.settings import Settings
from l2v.models.settings import ModelSettings
from l2v.training.recipes import Recipe, Simcse, Supervised

# The argument that means null. By default, pydantic-settings would read the text `None` as null.
NONE = "\0"
# What the help shows for a flag's value, such as NUMBER: by the field's name in `_NAMED`, else by its type in `_TYPES`.
_TYPES = {
    "str": "TEXT",
    "int": "NUMBER",
    "float": "NUMBER",
    "Path": "FILE",
    "tuple[str,...]": "NAMES",
    "tuple[SecretStr,...]": "KEYS",
    "SecretStr": "KEY",
    "AnyHttpUrl": "URL",
    "dict[str,str]": "NAME=SOURCE",
}
_NAMED = {
    "cors_origins": "URLS",
    "data": "FILES",
    "host": "ADDRESS",
    "ignore_tensors": "PATTERNS",
    "out": "FOLDER",
    "retry_for": "SECONDS",
    "runtime_adapters": "FOLDER",
    "url": "URL",
    **dict.fromkeys(("model", "device", "column", "instruction_column", "prompt_name", "model_name"), "NAME"),
}
# Matches a default in the help that is a tuple of names in Python's notation.
_TUPLE, _QUOTED = re.compile(r"\(default: \('(.*?)',?\)\)$"), "', '"
# Shells complete the values of these arguments with file names. pydantic-settings sets them as an argument's metavar.
_COMPLETED = ("Path", "INPUT", "OUTPUT", "OUT")


def _own(kind: Any, *others: Any) -> set[str]:
    """The fields of a class that no other given class has."""
    return set(kind.model_fields).difference(*(other.model_fields for other in others))


_SERVER = _own(Settings, ModelSettings)
_ACCESS = {"api_keys", "api_keys_file", "cors_origins", "protect_metrics", "protect_docs"}
_TRAINING = {*_own(Recipe, ModelSettings), *_own(Simcse, ModelSettings), *_own(Supervised, ModelSettings)}
# A flag belongs to the first group that contains its field, else to the general options.
_GROUPS: dict[str, set[str]] = {
    "model": set(ModelSettings.model_fields),
    "service": _own(ClientSettings, ModelSettings, Settings),
    "limits": {name for name in _SERVER if name.startswith("max_") or name.endswith("_timeout")},
    "access": _ACCESS,
    "server": _SERVER,
    "input and output": set(RunSettings.model_fields),
}
_TRAIN_GROUPS = {
    "model": set(ModelSettings.model_fields),
    "adapter": {name for name in _TRAINING if name.startswith("lora_")},
    "training": _TRAINING,
}


def add_argument(parser: ArgumentParser, *names: str, **options: Any) -> None:
    """Adds an argument to its group, and shows its type in a readable form."""
    for empty in (NONE, "()", ""):
        options["help"] = options["help"].removesuffix(f" (default: {empty})")
    options["help"] = _TUPLE.sub(lambda match: f"(default: {match[1].replace(_QUOTED, ',')})", options["help"])
    destination, kind = str(options.get("dest", "")), options.get("metavar")
    field = destination.rpartition(".")[2]
    if kind in _TYPES:
        options["metavar"] = _NAMED.get(field) or ("SECONDS" if field.endswith("_timeout") else _TYPES[kind])
    flag = names and names[0].startswith("-")
    known = _TRAIN_GROUPS if destination.startswith("train.") else _GROUPS
    title = next((title for title, fields in known.items() if field in fields), None) if flag else None
    target: Any = parser
    if title and isinstance(parser, ArgumentParser):
        groups = parser._action_groups  # noqa: SLF001
        target = next((group for group in groups if group.title == title), None) or parser.add_argument_group(title)
    action: Any = ArgumentParser.add_argument(target, *names, **options)
    if kind in _COMPLETED:
        action.complete = shtab.FILE


def shorten_usage(parser: ArgumentParser) -> None:
    """Leaves the flags out of the usage lines of a parser and its subparsers, since the help lists all flags."""
    positionals = [action for action in parser._actions if not action.option_strings]  # noqa: SLF001
    words = [
        "COMMAND …" if isinstance(action, _SubParsersAction) else f"{action.metavar}{' …' if action.nargs else ''}"
        for action in positionals
    ]
    parser.usage = " ".join(["%(prog)s", "[flags]", *words])
    for child in _children(parser).values():
        shorten_usage(child)


def parse(parser: ArgumentParser, args: Sequence[str] | None = None, namespace: Namespace | None = None) -> Namespace:
    """Parses the arguments.

    The documents of `l2v similarity` become a JSON list, since pydantic-settings would split plain texts at commas.
    """
    words = sys.argv[1:] if args is None else list(args)
    children = _children(parser)
    if words and not words[0].startswith("-") and words[0] not in children:
        parser.error(f"there is no command {words[0]}{_suggestion(words[0], children)}")
    parsed, unknown = ArgumentParser.parse_known_args(parser, words, namespace)
    if unknown:
        _refuse(command_parser(parser, words), unknown[0])
    if documents := getattr(parsed, "similarity.documents", None):
        setattr(parsed, "similarity.documents", json.dumps(documents))
    return parsed


def command_parser(parser: ArgumentParser, args: Sequence[str]) -> ArgumentParser:
    """The parser of the subcommand that the arguments name."""
    for word in args:
        parser = _children(parser).get(word, parser)
    return parser


def _refuse(parser: ArgumentParser, word: str) -> NoReturn:
    flags = (flag for action in parser._actions for flag in action.option_strings)  # noqa: SLF001
    if word.startswith("-"):
        name = word.partition("=")[0]
        parser.error(f"there is no flag {name}{_suggestion(name, flags)}")
    parser.error(f"unexpected argument {word}")


def _suggestion(word: str, known: Any) -> str:
    found = get_close_matches(word, list(known), 1)
    return f": did you mean {found[0]}?" if found else ""


def _children(parser: ArgumentParser) -> dict[str, ArgumentParser]:
    actions = (action for action in parser._actions if isinstance(action, _SubParsersAction))  # noqa: SLF001
    return {name: child for action in actions for name, child in action.choices.items()}
