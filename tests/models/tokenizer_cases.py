"""Tiny tokenizers with one or more odd declarations each, for test_tokenizer.py and its reference.

`python -m tests.models.tokenizer_cases` writes tokenizer_goldens.json beside this file: the ids of transformers 4.44.2,
in an environment of tests/parity/requirements.txt with sentencepiece and protobuf.
"""

import json
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from l2v.models import sentencepiece_model

STACKS = Path(__file__).parents[1] / "parity" / "stacks"
GOLDENS = Path(__file__).with_name("tokenizer_goldens.json")
TEXTS = ("the cat <s> sat</s> on the_mat <mask>", "  [PAD] über 7🙂<extra>x\t\n ▁a <eos> <|eot_id|> ")
Json = dict[str, Any]


def token(content: str, **flags: bool) -> Json:
    """An added token, special unless `flags` say otherwise."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"content": content, **plain, "special": True, **flags}


# Name of a layout → its stack, its class (None: the stack's own), and where the vocabulary is.
LAYOUTS: dict[str, tuple[str, str | None, str]] = {
    "llama": ("sheared-llama", None, "json"),
    "gemma": ("gemma", None, "json"),
    "qwen2": ("qwen2-instruct", None, "json"),
    "llama3": ("llama3-instruct", None, "json"),
    "gpt2": ("llama3-instruct", "GPT2Tokenizer", "json"),
    "codegen": ("llama3-instruct", "CodeGenTokenizer", "json"),
    "neox": ("llama3-instruct", "GPTNeoXTokenizerFast", "json"),
    "cohere": ("llama3-instruct", "CohereTokenizerFast", "json"),
    "bloom": ("llama3-instruct", "BloomTokenizerFast", "json"),
    "code-llama": ("sheared-llama", "CodeLlamaTokenizer", "json"),
    "llama+model": ("sheared-llama", None, "json+bpe"),
    "llama-bpe": ("sheared-llama", None, "bpe"),
    "llama-unigram": ("sheared-llama", None, "unigram"),
    "code-llama-bpe": ("sheared-llama", "CodeLlamaTokenizer", "bpe"),
    "gemma-bpe": ("gemma", None, "bpe"),
    "gemma-unigram": ("gemma", None, "unigram"),
    "gpt2-files": ("llama3-instruct", "GPT2Tokenizer", "files"),
    "codegen-files": ("llama3-instruct", "CodeGenTokenizer", "files"),
    "qwen2-files": ("qwen2-instruct", None, "files"),
}
_EXTRA = {"content": "<extra>", "lstrip": True, "rstrip": True, "normalized": True, "single_word": False}
# Name of a declaration → the keys that it changes in tokenizer_config.json, or in a named file. "-" removes a key,
# "+" before a key extends its value.
CHANGES: dict[str, Json] = {
    "as it is": {},
    "add_eos": {"add_eos_token": True},
    "no add_bos": {"add_bos_token": False},
    "both ends": {"add_bos_token": True, "add_eos_token": True},
    "only eos": {"add_bos_token": False, "add_eos_token": True},
    "null ends": {"add_bos_token": None, "add_eos_token": None},
    "no flags": {"add_bos_token": "-", "add_eos_token": "-", "legacy": "-", "add_prefix_space": "-"},
    "other bos": {"bos_token": "a", "add_bos_token": True},
    "new bos": {"bos_token": "<new>", "add_bos_token": True, "add_eos_token": True},
    "other eos": {"eos_token": "t", "add_eos_token": True},
    "mask": {"mask_token": "_"},
    "mask object": {"mask_token": {"__type": "AddedToken", **token("<mask>", lstrip=True, special=False)}},
    "additional": {"additional_special_tokens": ["<extra>", "at"]},
    "additional objects": {"additional_special_tokens": [{"__type": "AddedToken", **_EXTRA}]},
    "split": {"split_special_tokens": True},
    "split and eos": {"split_special_tokens": True, "add_eos_token": True},
    "prefix": {"add_prefix_space": True},
    "no prefix": {"add_prefix_space": False},
    "null prefix": {"add_prefix_space": None},
    "legacy": {"legacy": True},
    "not legacy": {"legacy": False},
    "null legacy": {"legacy": None},
    "prefix, legacy": {"legacy": True, "add_prefix_space": True},
    "no prefix, legacy": {"legacy": True, "add_prefix_space": False},
    "prefix, not legacy": {"legacy": False, "add_prefix_space": True},
    "no prefix, not legacy": {"legacy": False, "add_prefix_space": False},
    "no prefix, not legacy, eos": {"legacy": False, "add_prefix_space": False, "add_eos_token": True},
    "from_slow": {"from_slow": True},
    "from_slow, not legacy": {"from_slow": True, "legacy": False, "add_prefix_space": "-"},
    "added": {"+added_tokens_decoder": [token("<extra>"), token("[PAD]", special=False, normalized=True)]},
    "added, flags": {"+added_tokens_decoder": [_EXTRA | {"special": False}, token("the", special=False)]},
    "added, known": {"+added_tokens_decoder": {"1": token("<s>", rstrip=True), "300": token("at", lstrip=True)}},
    "added, pad": {"+added_tokens_decoder": [token("[PAD]")], "pad_token": "[PAD]"},
    "pad": {"pad_token": "[PAD]"},
    "no decoder": {"added_tokens_decoder": "-"},
    "map": {"added_tokens_decoder": "-", "special_tokens_map.json": {"eos_token": "t"}, "add_eos_token": True},
    "map object": {
        "added_tokens_decoder": "-",
        "special_tokens_map.json": {"mask_token": token("<mask>", lstrip=True), "pad_token": "[PAD]"},
    },
    "map list": {
        "added_tokens_decoder": "-",
        "additional_special_tokens": ["<mask>"],
        "special_tokens_map.json": {"additional_special_tokens": ["at", _EXTRA | {"special": True}]},
    },
    "map unread": {"special_tokens_map.json": {"eos_token": "t", "bos_token": "a"}, "add_eos_token": True},
    "added file": {
        "added_tokens_decoder": "-",
        "added_tokens.json": {"<extra>": 9000, "[PAD]": 9001},
        "special_tokens_map.json": {"pad_token": "[PAD]"},
    },
    "padding": {"tokenizer.json": {"padding": {
        "strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 3, "pad_type_id": 0,
        "pad_token": "the",
    }}},
    "truncation": {"tokenizer.json": {"truncation": {
        "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
    }}},
    "prefix in file": {"tokenizer.json": {"pre_tokenizer": {
        "type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True,
    }}},
    "fast class": {"tokenizer_class": "PreTrainedTokenizerFast", "add_eos_token": True},
    "no class": {"tokenizer_class": "-", "add_eos_token": True},
    "no config": {"tokenizer_config.json": None},
}  # fmt: skip


def cases() -> Iterator[tuple[str, str]]:
    """The meaningful pairs of a layout and a declaration."""
    for layout, change in product(LAYOUTS, CHANGES):
        byte_level = LAYOUTS[layout][0] in ("llama3-instruct", "qwen2-instruct")
        in_json = "json" in LAYOUTS[layout][2]
        if (change == "prefix in file" and not byte_level) or ("tokenizer.json" in CHANGES[change] and not in_json):
            continue
        yield layout, change


def write(folder: Path, layout: str, change: str) -> Path:
    """Writes the files of a case."""
    stack, kind, where = LAYOUTS[layout]
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    base = STACKS / stack / "base"
    files: dict[str, Any] = {name: json.loads((base / name).read_text(encoding="utf-8")) for name in names}
    if kind:
        files["tokenizer_config.json"]["tokenizer_class"] = kind
    apply(files, CHANGES[change])
    model = files["tokenizer.json"]["model"]
    if "json" not in where:
        files["tokenizer.json"] = None
    folder.mkdir(parents=True)
    if where == "files":
        files["vocab.json"] = model["vocab"]
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *model["merges"], ""]), encoding="utf-8")
    elif where != "json":
        pieces = sorted(model["vocab"], key=model["vocab"].get)
        (folder / "tokenizer.model").write_bytes(model_bytes(pieces, unigram=where == "unigram"))
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def apply(files: dict[str, Any], change: Json) -> None:
    """Applies a declaration to the files (name → content)."""
    config = files["tokenizer_config.json"]
    for key, value in change.items():
        if key.startswith("+"):
            used = [*files["tokenizer.json"]["model"]["vocab"].values(), *map(int, config[key[1:]])]
            numbered = {str(max(used) + 1 + index): item for index, item in enumerate(value)}
            config[key[1:]] |= value if isinstance(value, dict) else numbered
        elif key.endswith(".json"):
            files[key] = None if value is None else files.get(key, {}) | value
        elif value == "-":
            config.pop(key, None)
        else:
            config[key] = value


def model_bytes(pieces: list[str], *, unigram: bool) -> bytes:
    """A SentencePiece model of these pieces, the first ones with the best scores."""
    proto = sentencepiece_model.message_class()()
    proto.trainer_spec.model_type = sentencepiece_model.UNIGRAM if unigram else sentencepiece_model.BPE
    proto.trainer_spec.byte_fallback = True
    for index, piece in enumerate(pieces):
        kind = sentencepiece_model.NORMAL
        if piece == "<unk>":
            kind = sentencepiece_model.UNKNOWN
        elif piece in ("<s>", "</s>", "<pad>", "<eos>", "<bos>"):
            kind = sentencepiece_model.CONTROL
        elif len(piece) == 6 and piece.startswith("<0x"):
            kind = sentencepiece_model.BYTE
        elif piece == "▁▁▁▁":
            kind = sentencepiece_model.USER_DEFINED
        proto.pieces.add(piece=piece, score=-float(index) / (10 if unigram else 1), type=kind)
    return bytes(proto.SerializeToString())


def main() -> None:
    """Runs the reference on every case; equal results are stored once."""
    from transformers import AutoTokenizer, __version__

    assert __version__ == "4.44.2"
    rows: list[list[list[int]]] = []
    numbers: dict[str, dict[str, int | None]] = {layout: {} for layout in LAYOUTS}
    with tempfile.TemporaryDirectory() as root:
        for layout, change in cases():
            folder = write(Path(root, layout, change), layout, change)
            try:
                ids = AutoTokenizer.from_pretrained(folder)(list(TEXTS))["input_ids"]
            except Exception as error:
                print(f"{layout}: {change}: {type(error).__name__}: {error}"[:200])
                numbers[layout][change] = None
                continue
            if ids not in rows:
                rows.append(ids)
            numbers[layout][change] = rows.index(ids)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    cases_of = ",\n".join(f"{json.dumps(layout)}: {json.dumps(found)}" for layout, found in numbers.items())
    GOLDENS.write_text(f'{{"rows": [\n{lines}\n],\n"cases": {{\n{cases_of}\n}}}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
