"""The tokenizer classes that decoders use, and what each adds to its tokenizer.json in transformers 4.44."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from l2v.models.errors import UnsupportedModelError
from l2v.models.sources import Source


class Vocabulary(Enum):
    """What a tokenizer can be converted from if there is no tokenizer.json."""

    NONE = auto()
    SENTENCEPIECE = auto()  # tokenizer.model
    BPE = auto()  # vocab.json and merges.txt

    @property
    def files(self) -> tuple[str, ...]:
        return {
            Vocabulary.NONE: (),
            Vocabulary.SENTENCEPIECE: ("tokenizer.model",),
            Vocabulary.BPE: ("vocab.json", "merges.txt"),
        }[self]


@dataclass(frozen=True)
class TokenizerClass:
    """A tokenizer class.

    Attributes:
        name: the class's name, without `Fast`.
        tokens: default special tokens by role.
        adds: whether the class adds the beginning and the end token by default; None: tokenizer.json alone decides.
        prefix_space: "set": the flag `add_prefix_space` (default: false) overrides tokenizer.json; "on": the flag
            overrides tokenizer.json only if it is true.
        vocabulary: see `Vocabulary`.
        flags: the properties of special tokens that are given as strings. No code reads this field.
    """

    name: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    adds: tuple[bool, bool] | None = None
    prefix_space: str = ""
    vocabulary: Vocabulary = Vocabulary.NONE
    flags: Mapping[str, bool] = field(default_factory=dict)


_SPECIAL = {"normalized": False, "special": True}
_END_OF_TEXT = dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>")
_LLAMA = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
_INFILLING = {"prefix_token": "▁<PRE>", "middle_token": "▁<MID>", "suffix_token": "▁<SUF>", "eot_token": "▁<EOT>"}
_CLASSES = (
    TokenizerClass("PreTrainedTokenizer"),
    TokenizerClass("TokenizersBackend"),  # transformers 5
    TokenizerClass("LlamaTokenizer", _LLAMA, (True, False), "", Vocabulary.SENTENCEPIECE, _SPECIAL),
    TokenizerClass("CodeLlamaTokenizer", _LLAMA | _INFILLING, (True, False), "", Vocabulary.SENTENCEPIECE, _SPECIAL),
    TokenizerClass(
        "GemmaTokenizer",
        {"unk_token": "<unk>", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        (True, False),
        "",
        Vocabulary.SENTENCEPIECE,
        _SPECIAL,
    ),
    TokenizerClass(
        "Qwen2Tokenizer",
        {"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        vocabulary=Vocabulary.BPE,
        flags=_SPECIAL,
    ),
    TokenizerClass("GPT2Tokenizer", _END_OF_TEXT, None, "set", Vocabulary.BPE, {"normalized": True}),
    TokenizerClass("CodeGenTokenizer", _END_OF_TEXT, None, "set", Vocabulary.BPE, {"normalized": True}),
    TokenizerClass("GPTNeoXTokenizer", _END_OF_TEXT, (False, False), "set"),
    TokenizerClass(
        "CohereTokenizer",
        {"unk_token": "<UNK>", "bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"},
        (True, False),
        "on",
    ),
    TokenizerClass("BloomTokenizer", _LLAMA | {"pad_token": "<pad>"}, None, "on"),
)
_BY_NAME = {kind.name: kind for kind in _CLASSES}

# Model type → class, for files that name no class. Types later than transformers 4.44 have the class of their family.
_BY_MODEL_TYPE = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "phi3", "jetmoe", "persimmon", "jamba"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text", "recurrent_gemma"), "GemmaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gptj", "gpt_neo", "opt", "starcoder2", "dbrx"), "GPT2Tokenizer"),
    **dict.fromkeys(("phi", "codegen"), "CodeGenTokenizer"),
    **dict.fromkeys(("gpt_neox", "olmo", "olmoe", "stablelm", "mpt"), "GPTNeoXTokenizer"),
    **dict.fromkeys(("cohere", "cohere2"), "CohereTokenizer"),
    "code_llama": "CodeLlamaTokenizer",
    "bloom": "BloomTokenizer",
}


def class_for(source: Source, values: Mapping[str, Any], model_type: str, *, complete: bool) -> TokenizerClass:
    """The class named in the tokenizer's files, else in the model's config.json, else that of the model type.

    Args:
        source: the folder.
        values: the content of tokenizer_config.json.
        model_type: the model's type.
        complete: whether tokenizer.json is complete, see `tokenizer_config`.

    Raises:
        UnsupportedModelError: if the class is not supported.
    """
    if complete:
        return _BY_NAME["TokenizersBackend"]
    config = source.read("config.json")
    named = values.get("tokenizer_class") or config.get("tokenizer_class")
    name = named or _BY_MODEL_TYPE.get(config.get("model_type") or model_type, "PreTrainedTokenizer")
    if not isinstance(name, str) or (kind := _BY_NAME.get(name.removesuffix("Fast"))) is None:
        code = " (l2v never runs the code in its auto_map)" if values.get("auto_map") else ""
        raise UnsupportedModelError(
            f"the tokenizer of {source.name} is of class {name}, which l2v cannot rebuild{code}: serve a copy whose "
            "tokenizer was saved as tokenizer.json with the class PreTrainedTokenizerFast"
        )
    return kind
