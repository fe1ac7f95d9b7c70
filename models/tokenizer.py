"""Reads and writes tokenizers with the token ids of transformers 4.44, which the reference uses."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors

from l2v.models import attention
from l2v.models.errors import SourceError, UnsupportedModelError, first_line
from l2v.models.sources import Source
from l2v.models.tokenizer_checks import check_texts
from l2v.models.tokenizer_classes import Vocabulary
from l2v.models.tokenizer_config import CONFIG, MAP, NAMED, Token, TokenizerConfig, content_of, read_tokenizer_config
from l2v.models.tokenizer_convert import add_tokens, apply_llama_rules, can_convert, convert, llama_rules

logger = logging.getLogger(__name__)

# Keys of tokenizer_config.json that `write` copies. They have no effect on ids, or no place in tokenizer.json.
_KEPT = (
    "chat_template", "clean_up_tokenization_spaces", "model_max_length", "padding_side", "split_special_tokens",
    "truncation_side",
)  # fmt: skip


@dataclass(frozen=True)
class ModelTokenizer:
    """A model's tokenizer.

    Attributes:
        backend: encodes texts, without the truncation and padding that tokenizer.json may configure.
        named: role (`bos_token`, `mask_token` …) → special token.
        kept: the content of the keys of tokenizer_config.json that `write` copies.
    """

    backend: Tokenizer
    named: Mapping[str, str]
    kept: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cut_left(self) -> bool:
        """Whether rows that are too long lose their beginning, not their end."""
        return self.kept.get("truncation_side") == "left"

    def equals(self, backend: Tokenizer, cut_left: bool) -> bool:
        """Whether another tokenizer makes the same rows of every text."""
        splits = self.backend.encode_special_tokens == backend.encode_special_tokens  # `to_str` leaves this out
        return splits and self.cut_left == cut_left and self.backend.to_str() == backend.to_str()

    @property
    def special_ids(self) -> set[int]:
        return {index for index, token in self.backend.get_added_tokens_decoder().items() if token.special}

    def write(self, folder: Path) -> None:
        """Writes files from which `read_tokenizer`, and every release of transformers, restore this tokenizer."""
        self.backend.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": attention.INPUTS}
        for file, content in ((CONFIG, config | dict(self.kept) | dict(self.named)), (MAP, dict(self.named))):
            text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True)
            (folder / file).write_text(text + "\n", encoding="utf-8")


def read_tokenizer(source: Source, model_type: str = "", vocab_size: int | None = None) -> ModelTokenizer:
    """Reads a tokenizer. Remote code that its files may name is never run.

    Args:
        source: the folder.
        model_type: the model's type, for files that name no class.
        vocab_size: the model's vocabulary size. A special token that the vocabulary lacks gets a new id if the model
            has room.

    Raises:
        SourceError: if files are missing or damaged, or if different texts get the same ids.
        UnsupportedModelError: if the tokenizer needs something that is not supported.
    """
    file = _read_file(source)
    declared = read_tokenizer_config(source, model_type, file)
    backend = _reconvert(source, declared, file) if file else convert(source, declared)
    try:
        _add_tokens(backend, declared, vocab_size)
        _apply_class(backend, declared, converted=file is None)
    except (SourceError, UnsupportedModelError):
        raise
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise SourceError(
            f"the tokenizer of {source.name} cannot be built ({first_line(error)}): check the tokens in {CONFIG}"
        ) from error
    backend.encode_special_tokens = bool(declared.flag("split_special_tokens"))
    backend.no_truncation()
    backend.no_padding()
    check_texts(source.name, backend)
    _check_ignored(backend, declared)
    named = {role: content_of(token) for role, token in declared.named.items() if role in NAMED}
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    kept = {key: declared.values[key] for key in _KEPT if declared.values.get(key) is not None}
    return ModelTokenizer(backend, {role: token for role, token in named.items() if token in known}, kept)


def _read_file(source: Source) -> Tokenizer | None:
    """The tokenizer in tokenizer.json; None if there is no such file."""
    file = source.folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the tokenizers library raises plain exceptions
        content = source.read("tokenizer.json")  # raises if it is not JSON
        if not content.get("model"):
            raise SourceError(f"tokenizer.json of {source.name} has no model: it is not a tokenizer's file") from error
        raise UnsupportedModelError(
            f"tokenizer.json of {source.name} cannot be read by tokenizers {tokenizers.__version__} "
            f"({first_line(error)}): if a later release wrote it, run pip install -U tokenizers"
        ) from error


def _reconvert(source: Source, declared: TokenizerConfig, backend: Tokenizer) -> Tokenizer:
    """Converts the vocabulary again, as transformers does for `from_slow`, and for Llama if `add_prefix_space` is set.

    The conversion needs the vocabulary's files. Without them, transformers 4 fails, but l2v uses tokenizer.json: that
    file was saved after such a conversion, so it lacks at most an `add_prefix_space` that was set later.
    """
    llama = declared.kind.name == "LlamaTokenizer"
    prefix_space = declared.flag("add_prefix_space", None) if llama else None
    if declared.complete or (prefix_space is None and not declared.flag("from_slow")):
        return backend
    if can_convert(source, declared.kind.vocabulary):
        return convert(source, declared, beside_file=True)
    if prefix_space is not None:
        if backend.token_to_id("▁") is None:
            raise UnsupportedModelError(
                f"{CONFIG} of {source.name} sets add_prefix_space, but tokenizer.model is missing: remove the key to "
                "use tokenizer.json as it is"
            )
        apply_llama_rules(backend, **llama_rules(declared, beside_file=True))
    return backend


def _add_tokens(backend: Tokenizer, declared: TokenizerConfig, vocab_size: int | None) -> None:
    """Adds the declared tokens that the vocabulary lacks or holds with other properties."""
    spelled = {repr(token) for token in backend.get_added_tokens_decoder().values()}
    added = [token for token in declared.added.values() if repr(token) not in spelled]
    special = {content_of(token) for token in [*declared.named.values(), *declared.extra]}
    add_tokens(backend, added, special)
    for index, token in declared.added.items():
        if (actual := backend.token_to_id(token.content)) != index:
            logger.warning(
                "%s of %s gives %s the id %s, but the token has the id %s, as in transformers 4",
                CONFIG, declared.name, token, index, actual,
            )  # fmt: skip
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    roles = [token for role, token in declared.named.items() if role in NAMED]
    further = [token for role, token in declared.named.items() if role not in NAMED]
    tokens: dict[str, Token] = {}
    for new in [*roles, *declared.extra, *further]:
        if isinstance(new, AddedToken) or new not in known:
            tokens.setdefault(content_of(new), new)
    for content in _beyond(backend, tokens, vocab_size):
        if content not in {content_of(token) for token in declared.extra}:
            logger.warning("%s has no id for its token %s, which stays plain text", declared.name, content)
            del tokens[content]
    add_tokens(backend, tokens.values(), special)


def _beyond(backend: Tokenizer, tokens: Iterable[str], vocab_size: int | None) -> list[str]:
    """The tokens whose ids, if they were added, would lie beyond the model's vocabulary."""
    if vocab_size is None:
        return []
    new = [token for token in tokens if backend.token_to_id(token) is None]
    next_id = max([backend.get_vocab_size(with_added_tokens=False) - 1, *backend.get_added_tokens_decoder()]) + 1
    return new[max(0, vocab_size - next_id) :]


def _apply_class(backend: Tokenizer, declared: TokenizerConfig, *, converted: bool) -> None:
    """Applies the changes that a tokenizer's class makes to its tokenizer.json."""
    kind = declared.kind
    if kind.adds is not None:
        _add_ends(backend, declared, *kind.adds)
    elif declared.complete and declared.values.keys() & {"add_bos_token", "add_eos_token"}:
        _add_ends(backend, declared, False, False)
    elif declared.flag("add_bos_token") and kind.vocabulary is Vocabulary.BPE:
        if kind.name == "CodeGenTokenizer":
            raise UnsupportedModelError(
                f"{CONFIG} of {declared.name} sets add_bos_token, which {kind.name} does not support: remove the key"
            )
        if kind.name == "GPT2Tokenizer" and converted:
            _add_ends(backend, declared, True, None)
    if kind.prefix_space == "set" or (kind.prefix_space == "on" and declared.flag("add_prefix_space")):
        _set_prefix_space(backend, bool(declared.flag("add_prefix_space")), nested=kind.prefix_space == "on")


def _add_ends(backend: Tokenizer, declared: TokenizerConfig, bos: bool, eos: bool | None) -> None:
    """Replaces the post-processor by one that adds the beginning and the end token.

    `bos` and `eos` are the defaults of `add_bos_token` and `add_eos_token`; None: never add the token.
    """
    single, tokens = ["$A:0"], []
    for role, default in (("bos_token", bos), ("eos_token", eos)):
        if default is None or not declared.flag(f"add_{role}", default):
            continue
        token = content_of(declared.named.get(role, ""))
        index = backend.token_to_id(token)
        if index is None:
            if declared.complete:  # transformers 5 adds no token in this case
                continue
            raise SourceError(
                f"the tokenizer of {declared.name} adds a {role} to every text, but "
                + (f"{token} is not in its vocabulary" if token else "none is named")
                + f": name it in {CONFIG}, or set add_{role} to false there"
            )
        single.insert(len(single) if role == "eos_token" else 0, f"{token}:0")
        tokens.append((token, index))
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)


def _set_prefix_space(backend: Tokenizer, prefix_space: bool, *, nested: bool) -> None:
    """Sets whether byte-level pre-tokenizers put a space before the text; with `nested`, also those in a sequence."""
    outer = backend.pre_tokenizer
    steps: Any = outer if nested and isinstance(outer, pre_tokenizers.Sequence) else [outer]
    for step in steps:
        if isinstance(step, pre_tokenizers.ByteLevel):
            step.add_prefix_space = prefix_space


def _check_ignored(backend: Tokenizer, declared: TokenizerConfig) -> None:
    """Logs flags that have no effect: transformers 4 ignores them for some classes, but later releases honour them.

    Raises:
        UnsupportedModelError: if the tokenizer has code of its own, which may honour them.
    """
    if declared.kind.adds is not None or declared.complete:
        return
    ids = backend.encode("a").ids or [-1]
    for role, index in (("bos_token", 0), ("eos_token", -1)):
        wanted = declared.flag(f"add_{role}", None)
        token = declared.named.get(role)
        if wanted is not None and token and wanted != (ids[index] == backend.token_to_id(content_of(token))):
            if declared.code:
                raise UnsupportedModelError(
                    f"{CONFIG} of {declared.name} sets add_{role} to {json.dumps(wanted)}, but tokenizer.json says "
                    f"otherwise, and l2v never runs the tokenizer's own code ({declared.code}): in a copy, remove the "
                    "key, or change the post-processor in tokenizer.json"
                )
            _log_no_effect(declared, f"add_{role}")
    steps = backend.pre_tokenizer.__getstate__() if backend.pre_tokenizer else b""
    follows = declared.kind.prefix_space or b'"add_prefix_space":true' in steps
    if declared.flag("add_prefix_space") and not follows:
        _log_no_effect(declared, "add_prefix_space")


def _log_no_effect(declared: TokenizerConfig, key: str) -> None:
    logger.warning(
        "%s of %s sets %s to %s, which has no effect with a %s, as in transformers 4",
        CONFIG, declared.name, key, declared.values[key], declared.kind.name,
    )  # fmt: skip
