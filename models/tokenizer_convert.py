"""Builds a tokenizer from SentencePiece or GPT-2-style vocabulary files, as transformers 4.44 does."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from l2v.models import sentencepiece_model
from l2v.models.errors import SourceError, UnsupportedModelError, first_line
from l2v.models.sentencepiece_model import BPE, CONTROL, UNIGRAM, USER_DEFINED
from l2v.models.sources import Source
from l2v.models.tokenizer_classes import Vocabulary
from l2v.models.tokenizer_config import TokenizerConfig

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Tokenizer files that cannot be converted, and their formats.
_OTHERS = {
    "tekken.json": "Mistral's own format",
    "tiktoken.model": "tiktoken's format",
    "spiece.model": "a SentencePiece model for an unsupported tokenizer class",
    "vocab.txt": "a WordPiece vocabulary",
}


def can_convert(source: Source, vocabulary: Vocabulary) -> bool:
    return bool(vocabulary.files) and all((source.folder / file).is_file() for file in vocabulary.files)


def convert(source: Source, declared: TokenizerConfig, *, beside_file: bool = False) -> Tokenizer:
    """Builds a tokenizer from its vocabulary.

    Args:
        source: the folder.
        declared: what its files declare.
        beside_file: whether the folder also has a tokenizer.json. The converted tokenizer is used instead of it.

    Raises:
        SourceError: if a file is missing or damaged.
        UnsupportedModelError: if the format is not supported.
    """
    vocabulary = declared.kind.vocabulary
    if not can_convert(source, vocabulary):
        raise _missing(source, declared)
    try:
        if vocabulary is Vocabulary.BPE:
            return _byte_level(source, declared)
        return _sentencepiece(source, declared, beside_file)
    except SourceError:
        raise
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise SourceError(
            f"{' and '.join(vocabulary.files)} of {source.name} cannot be converted to a tokenizer "
            f"({first_line(error)}): add its tokenizer.json"
        ) from error


def apply_llama_rules(tokenizer: Tokenizer, *, legacy: bool, prefix_space: bool) -> None:
    """Sets how Llama's tokenizers treat spaces and the start of a text."""
    if legacy:
        steps = [normalizers.Prepend("▁")] if prefix_space else []
        tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = None
    else:
        tokenizer.normalizer = None
        scheme = "first" if prefix_space else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    strip = [decoders.Strip(" ", 1, 0)] if prefix_space else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )


def llama_rules(declared: TokenizerConfig, *, beside_file: bool) -> dict[str, bool]:
    """The arguments of `apply_llama_rules`. Without tokenizer.json, transformers adds the prefix space by default."""
    if declared.kind.name == "CodeLlamaTokenizer":
        return {"legacy": True, "prefix_space": True}
    legacy = declared.flag("legacy", None)
    prefix_space = declared.flag("add_prefix_space", None if beside_file else True)
    return {"legacy": legacy is not False, "prefix_space": bool(prefix_space)}


def add_tokens(tokenizer: Tokenizer, tokens: Iterable[AddedToken | str], special: set[str]) -> None:
    """Adds tokens in order. Those in `special`, and those marked as special, become special tokens."""

    def is_special(token: AddedToken | str) -> bool:
        return token in special if isinstance(token, str) else token.special or token.content in special

    for added_as_special, group in groupby(tokens, is_special):
        (tokenizer.add_special_tokens if added_as_special else tokenizer.add_tokens)(list(group))


def _missing(source: Source, declared: TokenizerConfig) -> SourceError | UnsupportedModelError:
    """The error for a folder that declares a tokenizer but lacks its files."""
    for file, what in _OTHERS.items():
        if (source.folder / file).is_file():
            return UnsupportedModelError(
                f"the tokenizer of {source.name} is in {file} ({what}), which l2v does not read: add its tokenizer.json"
            )
    absent = " and ".join(file for file in declared.kind.vocabulary.files if not (source.folder / file).is_file())
    return SourceError(
        f"the tokenizer of {source.name} has no vocabulary, since its folder lacks tokenizer.json"
        + (f" (and {absent}, from which a {declared.kind.name} could be built)" if absent else "")
        + ": copy tokenizer.json from the model's repository"
    )


def _byte_level(source: Source, declared: TokenizerConfig) -> Tokenizer:
    """GPT-2's and Qwen2's byte-level BPE."""
    vocab = source.read("vocab.json")
    lines = (source.folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    qwen2 = declared.kind.name == "Qwen2Tokenizer"
    if qwen2:
        lines = [line for index, line in enumerate(lines) if not (index == 0 and line.startswith("#version:"))]
        merges = [tuple(line.split()) for line in lines if line.strip()]
    else:
        merges = [tuple(line.split()) for line in lines[1:-1]]
    ranked: list[Any] = list(dict.fromkeys(merges))
    tokenizer = Tokenizer(models.BPE(vocab, ranked, continuing_subword_prefix="", end_of_word_suffix=""))
    if qwen2:
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    else:
        prefix_space = bool(declared.flag("add_prefix_space"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def _sentencepiece(source: Source, declared: TokenizerConfig, beside_file: bool) -> Tokenizer:
    """Llama's and Gemma's SentencePiece models, of type BPE or Unigram."""
    proto = _read_proto(source)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    gemma = declared.kind.name == "GemmaTokenizer"
    vocabulary: dict[str, Any] = {piece: index for index, (piece, _) in enumerate(pieces)}
    if gemma:
        firsts = [_content(declared.named.get(role)) for role in ("pad_token", "eos_token", "bos_token")]
        tabs = {"<0x09>": "\t"}
        vocabulary["\t"] = vocabulary.get("<0x09>")
    else:
        added = {} if beside_file else declared.added
        firsts = [_content(added.get(index, piece)) for index, (piece, _) in enumerate(pieces[:3])]
        tabs = {}
    scores = [(first, 0.0) for first in firsts] + [(tabs.get(piece, piece), score) for piece, score in pieces[3:]]
    tokenizer = Tokenizer(_model(proto.trainer_spec, scores, vocabulary, unk_id=3 if gemma else 0))
    marked = {"<start_of_turn>", "<end_of_turn>"} if gemma else set()
    control = [
        AddedToken(piece.piece, normalized=False, special=piece.type == CONTROL or piece.piece in marked)
        for piece in proto.pieces
        if piece.type in (CONTROL, USER_DEFINED)
    ]
    add_tokens(tokenizer, control, set())
    if gemma:
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        apply_llama_rules(tokenizer, **llama_rules(declared, beside_file=beside_file))
    return tokenizer


def _read_proto(source: Source) -> Any:
    """The SentencePiece model in tokenizer.model."""
    try:
        proto = sentencepiece_model.message_class()()
    except ImportError as error:
        raise SourceError(
            f"{source.name} has no tokenizer.json, and its tokenizer.model requires the package protobuf: run pip "
            "install protobuf, or add the tokenizer.json"
        ) from error
    try:
        proto.ParseFromString((source.folder / "tokenizer.model").read_bytes())
    except OSError:
        raise
    except Exception:  # protobuf's own error class; the check below reports it
        proto.Clear()
    if not proto.pieces:
        raise SourceError(
            f"tokenizer.model of {source.name} is not a SentencePiece model (it is cut off or in tiktoken's format): "
            "add the tokenizer.json that belongs to it"
        )
    return proto


def _model(trainer: Any, scores: list[tuple[str, float]], vocabulary: dict[str, Any], unk_id: int) -> models.Model:
    if trainer.model_type == UNIGRAM:
        return models.Unigram(scores, unk_id=unk_id, byte_fallback=True)
    if trainer.model_type != BPE:
        raise ValueError("it is neither BPE nor Unigram")
    return models.BPE(
        {piece: index for index, (piece, _) in enumerate(scores)},
        _merges(vocabulary, dict(scores)),
        unk_token=trainer.unk_piece,
        fuse_unk=True,
        byte_fallback=True,
    )


def _merges(vocabulary: dict[str, Any], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, the best scores first, as transformers derives them."""
    merges: list[tuple[str, str, float]] = []
    for piece, score in scores.items():
        halves = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        splits = [(left, right, score) for left, right in halves if left in vocabulary and right in vocabulary]
        merges += sorted(splits, key=lambda split: (vocabulary[split[0]], vocabulary[split[1]]))
    merges.sort(key=lambda merge: (merge[2], len(merge[0]), len(merge[1])), reverse=True)
    return [(left, right) for left, right, _ in merges]


def _content(token: AddedToken | str | None) -> str:
    if token is None:
        raise ValueError("it has no padding, end or beginning token")
    return token if isinstance(token, str) else token.content
