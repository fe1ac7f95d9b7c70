"""Reading a source's tokenizer so that it does what the reference's does, and writing it so that it stays so."""

import copy
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from l2v.models.errors import SourceError, UnsupportedModelError, first_line
from l2v.models.sources import Source

# The keys under which tokenizer files name single special tokens.
_SPECIAL_TOKENS = [f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]


def read_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer as transformers reads it; raises `SourceError` or `UnsupportedModelError`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise SourceError(f"{source.name} has no tokenizer that can be read ({first_line(error)})") from error
    if not tokenizer.is_fast:
        raise UnsupportedModelError(f"{source.name} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def read_backend(source: Source, tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The tokenizer itself, without truncation and padding, which its file may carry.

    From tokenizer.json where there is one: transformers 5 rebuilds Llama's from its vocabulary with other rules for
    leading spaces and special tokens than the file has, and than transformers 4, the reference's, follows. Special
    tokens that the other files name are added, as transformers does on loading: MNTP training names `_` the mask
    token, and so text splits at every underscore.
    """
    file = source.folder / "tokenizer.json"
    backend = Tokenizer.from_file(str(file)) if file.is_file() else copy.deepcopy(tokenizer.backend_tokenizer)
    named = source.read("tokenizer_config.json") | source.read("special_tokens_map.json")
    tokens = [named[key] for key in _SPECIAL_TOKENS if named.get(key)]
    contents = [token["content"] if isinstance(token, dict) else token for token in tokens]
    backend.add_special_tokens([content for content in contents if backend.token_to_id(content) is not None])
    backend.no_truncation()
    backend.no_padding()
    return backend


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer, folder: Path) -> None:
    """Writes a tokenizer's files, from which `read_backend` gives this backend again."""
    tokenizer.save_pretrained(folder)
    # As it is served, in place of what transformers may have rebuilt with other rules.
    backend.save(str(folder / "tokenizer.json"))
