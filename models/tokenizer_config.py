"""Reads a tokenizer's files as transformers 4.44 does, the release that the reference `llm2vec` 0.2.3 uses.

Every key of tokenizer_config.json and special_tokens_map.json is of one of four kinds:

- It can change token ids: it is followed (`_READ`), or refused by name (`_REFUSED`).
- It concerns decoding, padding, lengths, chats, images or the origin of the files: it is ignored (`_HARMLESS`).
- It is unknown and off (null, false, zero, empty): it is ignored.
- It is unknown and on. No tokenizer of transformers reads the key, so it has no effect. It is logged, or refused if its
  name suggests that it changes how texts are split, since a later release may read it.

transformers 5 marks the files that it writes with the key `backend`. Their tokenizer.json is complete, so the class of
the tokenizer adds nothing to it. Of the keys that only later releases read, `extra_special_tokens` is followed, since
its tokens are special in all those releases, and `fix_mistral_regex` is refused, unless tokenizer.json was saved with
the corrected expression.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from l2v.models.errors import SourceError, UnsupportedModelError, first_line
from l2v.models.sources import Source
from l2v.models.tokenizer_classes import TokenizerClass, class_for

logger = logging.getLogger(__name__)

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
NAMED = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_LISTS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
_FLAGS = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "split_special_tokens", "from_slow")
_READ = {*NAMED, *_LISTS, *_FLAGS, "added_tokens_decoder", "auto_map", "backend", "tokenizer_class", "truncation_side"}
# If one of these keys is on, it changes ids in a way that l2v does not support.
_REFUSED = {"do_lower_case", "fast_tokenizer_files", "fix_mistral_regex", "init_inputs"}
_CORRECTED = r"[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}"  # part of Mistral's expression, in JSON
_HARMLESS = {
    # Decoding.
    "clean_up_tokenization_spaces", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "errors", "spaces_between_special_tokens",
    # Lengths and padding: rows are cut at the encoder's own max_length, and never padded.
    "max_len", "max_length", "max_model_input_sizes", "model_max_length", "pad_to_multiple_of", "pad_token_type_id",
    "padding", "padding_side", "stride", "truncation", "truncation_strategy",
    # What a call returns.
    "model_input_names", "return_token_type_ids",
    # Sampling, which only slow tokenizers do.
    "sp_model_kwargs",
    # Chats, tools, images.
    "add_generation_prompt", "chat_control_tokens", "chat_template", "default_chat_template",
    "grounded_generation_template", "image_processor_class", "processor_class", "response_schema", "response_template",
    "tool_use_template", "use_default_system_prompt",
    # Where the files come from, and how they were loaded.
    "cache_dir", "custom_pipelines", "device_map", "is_local", "local_files_only", "merges_file", "name_or_path",
    "revision", "special_tokens_map_file", "tokenizer_file", "tokenizer_type", "transformers_version",
    "trust_remote_code", "use_fast", "verbose", "vocab_file", "vocab_size",
}  # fmt: skip
_SUGGESTS_EFFECT = re.compile(
    "accent|add_|byte|case|chinese|clean|digit|dropout|encod|fallback|keep|legacy|lower|merge|norm|pattern|"
    "pre_?tok|post_?proc|prefix|punct|regex|remove|sampl|script|slow|space|special|split|strip|suffix|trunc|unicode|"
    "upper|vocab|word"
)

Token = str | AddedToken


@dataclass(frozen=True)
class TokenizerConfig:
    """What the files declare.

    Attributes:
        name: the source's name, for messages.
        kind: the class of the tokenizer.
        complete: whether tokenizer.json is complete, see the module's docstring.
        values: the values of the files by key.
        named: role (`bos_token` …) → token.
        extra: further special tokens.
        added: id → token, from `added_tokens_decoder` or the files that this key replaced.
    """

    name: str
    kind: TokenizerClass
    complete: bool
    values: Mapping[str, Any]
    named: Mapping[str, Token]
    extra: tuple[Token, ...]
    added: Mapping[int, AddedToken]

    @property
    def code(self) -> str:
        """The tokenizer's class in the publisher's own code, which is never run; "" if there is none."""
        named = self.values.get("auto_map")
        classes = named.get("AutoTokenizer") if isinstance(named, dict) else named
        listed = classes if isinstance(classes, list | tuple) else [classes]
        return next((name for name in listed if isinstance(name, str)), "")

    def flag(self, key: str, default: bool | None = False) -> bool | None:
        """The value of a key: true or false; `default` if the key is absent, None if it is null."""
        value = self.values.get(key, default)
        if value is not None and not isinstance(value, bool):
            raise SourceError(f"{CONFIG} of {self.name} sets {key} to {value!r}: write true or false")
        return value


def read_tokenizer_config(source: Source, model_type: str, file: Tokenizer | None) -> TokenizerConfig:
    """Reads what a source's files declare.

    Args:
        source: the folder.
        model_type: the model's type, for a tokenizer whose files name no class.
        file: the tokenizer in tokenizer.json; None if there is no such file.

    Raises:
        SourceError: if a value is of the wrong type.
        UnsupportedModelError: for a class or a key that is not supported.
    """
    values = source.read(CONFIG)
    try:
        return _read(source, values, model_type, file)
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(
            f"the tokens in {CONFIG} of {source.name} cannot be read ({first_line(error)}): correct that file"
        ) from error


def _read(source: Source, values: dict[str, Any], model_type: str, file: Tokenizer | None) -> TokenizerConfig:
    complete = file is not None and values.get("backend") == "tokenizers"
    kind = class_for(source, values, model_type, complete=complete)
    added = {int(index): _token(token) for index, token in (values.get("added_tokens_decoder") or {}).items()}
    if "added_tokens_decoder" in values:
        _log_unread(source, values, added)
    else:
        values = values | _special_tokens(source, values)
        specials = {content_of(token) for token in [*_named(values).values(), *_extra(source, values)]}
        added |= {
            int(index): AddedToken(content, normalized=content not in specials, special=content in specials)
            for content, index in source.read(ADDED).items()
        }
        added |= file.get_added_tokens_decoder() if file else {}
    _check_keys(source, values, file)
    padding = {"pad_token": file.padding["pad_token"]} if file and file.padding else {}
    defaults = padding | dict(kind.tokens)
    roles = dict.fromkeys([*NAMED, *kind.tokens])
    by_content = {token.content: token for token in added.values()}
    named = {key: by_content.get(content_of(token), token) for key, token in _named(defaults | values, roles).items()}
    extra = _extra(source, values)
    return TokenizerConfig(source.name, kind, complete, values, named, tuple(extra), dict(sorted(added.items())))


def _log_unread(source: Source, values: dict[str, Any], added: Mapping[int, AddedToken]) -> None:
    """Logs where the older files differ; transformers ignores these files if there is an `added_tokens_decoder`."""
    older, current = _named(source.read(MAP)), _named(values)
    differ = [key for key, token in older.items() if content_of(token) != content_of(current.get(key, ""))]
    known = {token.content for token in added.values()}
    for file, ignored in ((MAP, differ), (ADDED, [token for token in source.read(ADDED) if token not in known])):
        if ignored:
            logger.warning("%s of %s is ignored for %s: %s differs", file, source.name, ", ".join(ignored), CONFIG)


def _special_tokens(source: Source, values: dict[str, Any]) -> dict[str, Any]:
    """The keys of special_tokens_map.json, which transformers reads if there is no `added_tokens_decoder`."""
    declared = source.read(MAP)
    if isinstance(more := declared.get(_LISTS[0]), list):
        listed = values.get(_LISTS[0]) or []
        declared[_LISTS[0]] = listed + [token for token in more if token not in listed]
    return declared


def _named(values: Mapping[str, Any], roles: Iterable[str] = NAMED) -> dict[str, Token]:
    """Role → token, in the order in which transformers adds them."""
    return {role: value if isinstance(value, str) else _token(value) for role in roles if (value := values.get(role))}


def _extra(source: Source, values: Mapping[str, Any]) -> list[Token]:
    """The special tokens without a role."""
    tokens: list[Token] = []
    for key in _LISTS:
        listed = values.get(key) or []
        listed = list(listed.values()) if isinstance(listed, dict) else listed
        if not isinstance(listed, list) or not all(isinstance(token, str | dict) for token in listed):
            raise SourceError(f"{key} in {CONFIG} of {source.name} is not a list of tokens")
        tokens += [token if isinstance(token, str) else _token(token) for token in listed]
    return tokens


def _token(value: Any) -> AddedToken:
    """A token from its JSON object. Raises `TypeError` if the value is not a token's object."""
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise TypeError(f"{value!r} is not a token")
    special = {"special": True} if value.get("__type") != "AddedToken" and "special" not in value else {}
    return AddedToken(**({key: item for key, item in value.items() if key not in ("__type", "id")} | special))


def content_of(token: Token) -> str:
    """The string that a token stands for."""
    return token if isinstance(token, str) else token.content


def _check_keys(source: Source, values: Mapping[str, Any], file: Tokenizer | None) -> None:
    """Refuses keys that are on and not supported, and logs other unknown keys that are on."""
    unknown = {key for key, value in values.items() if value and key not in _READ | _HARMLESS}
    if values.get("fast_tokenizer_files") == ["tokenizer.json"]:
        unknown.remove("fast_tokenizer_files")
    if file and file.pre_tokenizer and _CORRECTED in file.pre_tokenizer.__getstate__().decode():
        unknown.discard("fix_mistral_regex")
    for key in sorted(unknown):
        if key in _REFUSED or (_SUGGESTS_EFFECT.search(key.lower()) and not key.endswith(("_token", "_token_id"))):
            raise UnsupportedModelError(
                f"{CONFIG} of {source.name} sets {key}, which l2v does not support: remove the key if it does not "
                "change how texts are tokenized"
            )
    if unknown:
        logger.info("%s of %s has keys that no tokenizer reads: %s", CONFIG, source.name, ", ".join(sorted(unknown)))
