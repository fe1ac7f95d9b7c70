"""Tiny tokenizers whose files have the structure of the published ones, down to normalizer and post-processor.

Parity depends on the pipeline: where a space becomes "▁", what adds BOS, which strings are special. So each builder
writes the real model's pipeline, with a vocabulary of a few hundred tokens trained on the standard library's
docstrings. The vocabulary depends on the Python version; the committed files are authoritative.
"""

import importlib
import inspect
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

Json = dict[str, Any]

CORPUS_MODULES = """
    argparse asyncio base64 calendar collections csv datetime decimal difflib email functools heapq html http.client
    inspect itertools json logging math os pathlib pickle random re shutil socket statistics string subprocess
    tarfile tempfile textwrap threading unittest urllib.parse zipfile
"""

# Some text in other scripts, so that not every non-ASCII character falls back to bytes.
OTHER_SCRIPTS = [
    "El niño comió jalapeños en la cafetería mañana por la mañana.",
    "Größe und Straße, über Äpfel, Öl und Übermut.",
    "L'été dernier, nous avons été très étonnés à la fenêtre.",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "機械学習は 日本語の 文章を ベクトルに 変える。",
    "السلام عليكم ورحمة الله وبركاته",
]

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

# Llama tokenizers have tokens for runs of spaces, and merge these first.
SPACE_RUNS = ["▁▁", "▁▁▁▁", "▁▁▁▁▁▁▁▁"]


@dataclass(frozen=True)
class TokenizerFiles:
    """The three JSON files of a tokenizer, and the values that a model config needs."""

    tokenizer: Json
    config: Json
    vocab_size: int
    bos_id: int | None
    eos_id: int
    mask_token: str | None = None

    def as_files(self, *, trained: bool) -> dict[str, Json]:
        """File name → content. `trained`: as saved by the MNTP training script, with a pad and a mask token.

        The script uses "_" as mask token, so the published configs list "_" as a special token, although tokenizer.json
        does not. transformers then adds it on loading, and splits every text at underscores.
        """
        named = {key: self.config[key] for key in ("bos_token", "eos_token", "unk_token", "pad_token")}
        config = dict(self.config)
        if trained:
            extra = {"pad_token": named["pad_token"] or named["eos_token"]}
            extra |= {"mask_token": self.mask_token} if self.mask_token else {}
            named |= extra
            config |= extra
        special = {key: value for key, value in named.items() if value is not None}
        return {"tokenizer.json": self.tokenizer, "tokenizer_config.json": config, "special_tokens_map.json": special}


def corpus() -> list[str]:
    """The lines of the standard library's docstrings, in a fixed order."""
    lines = []
    for name in CORPUS_MODULES.split():
        module = importlib.import_module(name)
        members = [module, *(value for _, value in sorted(inspect.getmembers(module), key=lambda pair: pair[0]))]
        documented = [inspect.getdoc(m) for m in members if inspect.ismodule(m) or callable(m)]
        lines += [line for doc in documented if doc for line in doc.splitlines() if line.strip()]
    return lines + OTHER_SCRIPTS * 40


def learn_bpe(size: int, *, byte_level: bool) -> tuple[list[str], list[str]]:
    """Train a BPE on the corpus; returns its pieces, in the order of ids, and its merges."""
    lines = corpus()
    tokenizer = Tokenizer(models.BPE())
    if byte_level:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        counts = Counter("▁".join(lines))
        # Chosen explicitly, since the trainer breaks ties between rare characters at random.
        alphabet = sorted(counts, key=lambda character: (-counts[character], character))[:150]
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].get), merges


def added_token(token_id: int, content: str) -> Json:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": token_id, "content": content, **flags, "special": True}


def bos_template(bos: str, bos_id: int) -> Json:
    """The post-processor that adds BOS at the start."""
    token = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            token,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": bos, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }


def tokenizer_json(added: list[Json], model: Json, **pipeline: Json | None) -> Json:
    """A tokenizer.json; `pipeline` holds its normalizer, pre_tokenizer, post_processor and decoder."""
    head: Json = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return head | {"normalizer": None, "pre_tokenizer": None} | pipeline | {"model": model}


def tokenizer_config(added: list[Json], **values: Any) -> Json:
    decoder = {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added}
    defaults = {"bos_token": None, "unk_token": None, "pad_token": None, "clean_up_tokenization_spaces": False}
    return {"added_tokens_decoder": decoder} | defaults | values


def bpe_model(vocab: list[str], merges: list[str], **options: Any) -> Json:
    defaults = {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
    }
    return {"type": "BPE", **defaults, **options, "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges}


def byte_level(split: str) -> Json:
    """The pre-tokenizer of Llama 3 and Qwen2: split by a regex, then map bytes to printable characters."""
    split_step = {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
    bytes_step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [split_step, bytes_step]}


BYTE_LEVEL_POST: Json = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}


def llama3(size: int) -> TokenizerFiles:
    """Llama 3: byte-level BPE, special tokens after the vocabulary, BOS from the post-processor."""
    pieces, merges = learn_bpe(size, byte_level=True)
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    added = [added_token(len(pieces) + i, token) for i, token in enumerate(specials)]
    bos, eos = added[0], added[-1]
    tokenizer = tokenizer_json(
        added,
        bpe_model(pieces, merges, ignore_merges=True),
        pre_tokenizer=byte_level(LLAMA3_SPLIT),
        post_processor={"type": "Sequence", "processors": [BYTE_LEVEL_POST, bos_template(bos["content"], bos["id"])]},
        decoder=BYTE_LEVEL_POST,
    )
    config = tokenizer_config(
        added,
        bos_token=bos["content"],
        eos_token=eos["content"],
        clean_up_tokenization_spaces=True,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=8192,
        tokenizer_class="PreTrainedTokenizerFast",
    )
    return TokenizerFiles(tokenizer, config, len(pieces) + len(added), bos["id"], eos["id"], mask_token="_")


def qwen2(size: int) -> TokenizerFiles:
    """Qwen2: byte-level BPE after NFC, no BOS, padded with <|endoftext|>."""
    pieces, merges = learn_bpe(size, byte_level=True)
    added = [added_token(len(pieces) + i, t) for i, t in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])]
    tokenizer = tokenizer_json(
        added,
        bpe_model(pieces, merges),
        normalizer={"type": "NFC"},
        pre_tokenizer=byte_level(QWEN2_SPLIT),
        post_processor=BYTE_LEVEL_POST | {"add_prefix_space": False, "use_regex": False},
        decoder=BYTE_LEVEL_POST | {"add_prefix_space": False, "use_regex": False},
    )
    config = tokenizer_config(
        added,
        add_prefix_space=False,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        errors="replace",
        split_special_tokens=False,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=32768,
        tokenizer_class="Qwen2Tokenizer",
    )
    return TokenizerFiles(tokenizer, config, len(pieces) + len(added), None, added[-1]["id"])


def sentencepiece_model(specials: list[str], size: int) -> Json:
    """A SentencePiece BPE, as converted by transformers: special tokens, 256 bytes, runs of spaces, learnt pieces."""
    learnt, merges = learn_bpe(size, byte_level=False)
    vocab = specials + [f"<0x{byte:02X}>" for byte in range(256)] + SPACE_RUNS
    run_merges = [f"{run[: len(run) // 2]} {run[: len(run) // 2]}" for run in SPACE_RUNS]
    vocab += [piece for piece in learnt if piece not in vocab]
    return bpe_model(vocab, run_merges + merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def llama2(size: int, *, legacy: bool, mask_token: str | None) -> TokenizerFiles:
    """Llama 2 and Mistral v0.2: "▁" before the text and for every space, BOS from the post-processor."""
    specials = ["<unk>", "<s>", "</s>"]
    added = [added_token(i, token) for i, token in enumerate(specials)]
    model = sentencepiece_model(specials, size)
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    tokenizer = tokenizer_json(
        added,
        model,
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        post_processor=bos_template("<s>", 1),
        decoder={"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
    )
    config = tokenizer_config(
        added,
        add_bos_token=True,
        add_eos_token=False,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        legacy=legacy,
        model_max_length=1000000000000000019884624838656,
        sp_model_kwargs={},
        tokenizer_class="LlamaTokenizer",
        use_default_system_prompt=False,
    )
    return TokenizerFiles(tokenizer, config, len(model["vocab"]), 1, 2, mask_token=mask_token)


def gemma(size: int) -> TokenizerFiles:
    """Gemma: "▁" for every space, none before the text, BOS from the post-processor."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    added = [added_token(i, token) for i, token in enumerate(specials)]
    model = sentencepiece_model(specials, size)
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    tokenizer = tokenizer_json(
        added,
        model,
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        post_processor=bos_template("<bos>", 2),
        decoder={"type": "Sequence", "decoders": [spaces, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    )
    config = tokenizer_config(
        added,
        add_bos_token=True,
        add_eos_token=False,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        legacy=None,
        model_max_length=1000000000000000019884624838656,
        sp_model_kwargs={},
        tokenizer_class="GemmaTokenizer",
        use_default_system_prompt=False,
    )
    return TokenizerFiles(tokenizer, config, len(model["vocab"]), 2, 1)
