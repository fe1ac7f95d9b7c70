"""Reading and writing tokenizers so that they match the reference's."""

import copy
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from l2v.models.errors import SourceError, UnsupportedModelError, first_line
from l2v.models.sources import Source

# Keys of single special tokens in tokenizer files.
_SPECIAL_TOKENS = [f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


def read_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers reads it.

    Raises:
        SourceError: if it cannot be read.
        UnsupportedModelError: if it has no fast version.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise SourceError(f"the tokenizer of {source.name} cannot be read ({first_line(error)})") from error
    if not tokenizer.is_fast:
        raise UnsupportedModelError(f"{source.name} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def read_backend(source: Source, tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The `tokenizers` object that encodes texts, without the truncation and padding that its file may configure.

    Reads tokenizer.json if there is one. transformers 5 would rebuild Llama's tokenizer from its vocabulary, with rules
    for leading spaces and special tokens that differ from the file's, which transformers 4 and so the reference follow.
    Special tokens from the other files are added, as transformers does: MNTP training declares `_` as the mask token,
    so texts are split at every underscore.
    """
    file = source.folder / "tokenizer.json"
    backend = Tokenizer.from_file(str(file)) if file.is_file() else copy.deepcopy(tokenizer.backend_tokenizer)
    declared = source.read("tokenizer_config.json") | source.read("special_tokens_map.json")
    tokens = [declared[key] for key in _SPECIAL_TOKENS if declared.get(key)]
    contents = [token["content"] if isinstance(token, dict) else token for token in tokens]
    backend.add_special_tokens([content for content in contents if backend.token_to_id(content) is not None])
    backend.no_truncation()
    backend.no_padding()
    return backend


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer, folder: Path) -> None:
    """Writes a tokenizer's files, from which `read_backend` restores this backend."""
    tokenizer.save_pretrained(folder)
    # Overwrites the file that transformers may have rebuilt with other rules.
    backend.save(str(folder / "tokenizer.json"))
