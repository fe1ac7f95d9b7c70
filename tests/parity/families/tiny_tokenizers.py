"""Tiny tokenizers for the families: those of the LLM2Vec stacks, changed where a family's files differ.

The most important difference is the token that ends a row. In some families, the post-processor of tokenizer.json
appends one; in one family, only tokenizer_config.json asks for it; most append none.
"""

import dataclasses
import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tokenizer_files import Json, TokenizerFiles, gemma, llama2, llama3, qwen2

NO_LIMIT = 1000000000000000019884624838656


def template(before: str | None, after: str | None, ids: dict[str, int]) -> Json:
    """The post-processor that puts a token before and another one after each sequence."""

    def around(sequence: str, type_id: int) -> list[Json]:
        parts = [{"SpecialToken": {"id": before, "type_id": type_id}}] if before else []
        parts.append({"Sequence": {"id": sequence, "type_id": type_id}})
        return parts + ([{"SpecialToken": {"id": after, "type_id": type_id}}] if after else [])

    used = {token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in (before, after) if token}
    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": used,
    }


def special_ids(files: TokenizerFiles) -> dict[str, int]:
    return {token["content"]: token["id"] for token in files.tokenizer["added_tokens"]}


def change(files: TokenizerFiles, *, post_processor: Json | None = None, **config: object) -> TokenizerFiles:
    """The same tokenizer with another post-processor, and with these keys in tokenizer_config.json."""
    tokenizer = files.tokenizer | ({"post_processor": post_processor} if post_processor else {})
    return dataclasses.replace(files, tokenizer=tokenizer, config=files.config | config)


@functools.cache
def qwen3(*, ends_row: bool, length: int = 131072) -> TokenizerFiles:
    """Qwen3's; with `ends_row` the post-processor appends <|endoftext|>, as in Qwen3-Embedding."""
    files = qwen2(480)
    post = files.tokenizer["post_processor"]
    if ends_row:
        after = template(None, "<|endoftext|>", special_ids(files))
        post = {"type": "Sequence", "processors": [post, after]}
    return change(files, post_processor=post, model_max_length=length)


@functools.cache
def mistral(*, length: int = NO_LIMIT, add_eos: bool = False) -> TokenizerFiles:
    """Mistral v0.1's. `add_eos` is set only in tokenizer_config.json: tokenizer.json adds only <s>."""
    files = llama2(330, legacy=True, mask_token=None)
    return change(files, add_eos_token=add_eos, pad_token="</s>", model_max_length=length)


@functools.cache
def gemma3(*, length: int, ends_row: bool) -> TokenizerFiles:
    """Gemma's; with `ends_row` the post-processor puts <bos> before and <eos> after each text."""
    files = gemma(330)
    post = template("<bos>", "<eos>" if ends_row else None, special_ids(files))
    return change(files, post_processor=post, add_eos_token=ends_row, model_max_length=length)


@functools.cache
def llama32(*, length: int) -> TokenizerFiles:
    """Llama 3's, padded with <|eot_id|>."""
    return change(llama3(480), pad_token="<|eot_id|>", model_max_length=length)


@functools.cache
def ministral(*, length: int) -> TokenizerFiles:
    """Byte-level BPE with <s>, </s> and <pad>, and <s> before each text: what Ministral 3's tokenizer.json does."""
    files = llama3(480)
    names = dict(zip([token["content"] for token in files.tokenizer["added_tokens"]], MINISTRAL_SPECIALS, strict=True))
    added = [token | {"content": names[token["content"]]} for token in files.tokenizer["added_tokens"]]
    decoder = {
        index: token | {"content": names[token["content"]]}
        for index, token in files.config["added_tokens_decoder"].items()
    }
    ids = {token["content"]: token["id"] for token in added}
    tokenizer = files.tokenizer | {"added_tokens": added, "post_processor": template("<s>", None, ids)}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"added_tokens_decoder": decoder, **named, "model_max_length": length}
    config |= {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "clean_up_tokenization_spaces": False}
    return dataclasses.replace(files, tokenizer=tokenizer, config=config, bos_id=ids["<s>"], eos_id=ids["</s>"])


MINISTRAL_SPECIALS = ("<s>", "</s>", "<unk>", "<pad>", "[INST]")
