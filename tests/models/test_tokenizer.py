"""Token ids are those of transformers 4.44.2, as in the reference; a tokenizer that cannot give them is refused."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from l2v.models import Input, ModelError, UnsupportedModelError, load
from l2v.models.sources import Source
from l2v.models.tokenizer import ModelTokenizer, read_tokenizer
from l2v.models.tokenizer_checks import check_vocabulary
from tests import tiny
from tests.models import tokenizer_cases
from tests.models.tokenizer_cases import GOLDENS, LAYOUTS, TEXTS, token

STORED: dict[str, Any] = json.loads(GOLDENS.read_text(encoding="utf-8"))


def read(folder: Path, vocab_size: int | None = None) -> ModelTokenizer:
    return read_tokenizer(Source("mine", folder), "llama", vocab_size)


def ids(tokenizer: ModelTokenizer) -> list[list[int]]:
    return [row.ids for row in tokenizer.backend.encode_batch_fast(list(TEXTS))]


def case(folder: Path, layout: str = "llama", change: dict[str, Any] | None = None) -> Path:
    """The files of a layout, with changed keys in tokenizer_config.json."""
    tokenizer_cases.write(folder, layout, "as it is")
    if change:
        edit(folder / "tokenizer_config.json", change)
    return folder


def edit(file: Path, change: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))


def refusal(folder: Path) -> str:
    """The message of the refusal, which is one sentence."""
    with pytest.raises(ModelError) as refused:
        read(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert not message.endswith((".", ":"))
    return message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_are_those_of_the_reference(layout: str, tmp_path: Path) -> None:
    differ = []
    for of, change in tokenizer_cases.cases():
        golden = STORED["cases"][layout].get(change)
        if of != layout or golden is None:
            continue
        tokenizer = read(tokenizer_cases.write(tmp_path / change, layout, change))
        if ids(tokenizer) != STORED["rows"][golden]:
            differ.append(change)
    assert not differ


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_files_restore_the_tokenizer(layout: str, tmp_path: Path) -> None:
    """Every class is written as PreTrainedTokenizerFast."""
    for change in ("as it is", "both ends", "split", "mask object", "added, flags", "additional objects", "map list"):
        if STORED["cases"][layout].get(change) is None:
            continue
        tokenizer = read(tokenizer_cases.write(tmp_path / change, layout, change))
        (tmp_path / change / "out").mkdir()
        tokenizer.write(tmp_path / change / "out")
        again = read(tmp_path / change / "out")
        assert ids(again) == ids(tokenizer)
        assert (again.named, again.special_ids) == (tokenizer.named, tokenizer.special_ids)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", ["gemma", "llama", "llama-bpe", "qwen2", "llama3", "gpt2-files"])
def test_transformers_5_reads_the_written_files(layout: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for change in ("both ends", "split", "mask object", "added, flags"):
        if STORED["cases"][layout].get(change) is None:
            continue
        folder = tokenizer_cases.write(tmp_path / change, layout, change)
        tokenizer = read(folder)
        (folder / "out").mkdir()
        tokenizer.write(folder / "out")
        assert AutoTokenizer.from_pretrained(folder / "out")(list(TEXTS))["input_ids"] == ids(tokenizer)


# How the files of a layout are damaged, and what the refusal says.
def _remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def _write(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def _set(file: str = "tokenizer_config.json", **change: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / file, change)


def _cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


REFUSED: list[tuple[str, list[Callable[[Path], None]], str]] = [
    ("llama", [_remove("tokenizer.json")], r"mine has no vocabulary.*lacks tokenizer\.json \(and tokenizer\.model"),
    ("llama3", [_remove("tokenizer.json")], r"lacks tokenizer\.json: copy"),
    ("qwen2-files", [_remove("merges.txt")], r"tokenizer\.json \(and merges\.txt, from which a Qwen2Tokenizer"),
    ("llama", [_remove("tokenizer.json"), _write("tekken.json", "{}")], r"in tekken\.json \(Mistral's own format\)"),
    ("llama", [_remove("tokenizer.json"), _write("vocab.txt", "a")], r"in vocab\.txt \(a WordPiece vocabulary\)"),
    ("llama-bpe", [_write("tokenizer.model", "IQ== 0\nIg== 1\n")], r"not a SentencePiece model.*tiktoken"),
    ("llama-bpe", [_write("tokenizer.model", "")], r"tokenizer\.model of mine is not a SentencePiece model"),
    ("llama-bpe", [_cut("tokenizer.model", 999)], r"tokenizer\.model of mine is not a SentencePiece model"),
    ("qwen2-files", [_write("vocab.json", '{"a": 0}')], r"vocab\.json and merges\.txt of mine cannot be converted"),
    ("qwen2-files", [_write("vocab.json", "[")], r"vocab\.json of mine"),
    ("gpt2", [_set("tokenizer.json", pre_tokenizer={"type": "Novel"})], r"read by tokenizers 0.*pip install"),
    ("gpt2", [_write("tokenizer.json", "{}")], r"tokenizer\.json of mine has no model"),
    ("gpt2", [_set("tokenizer.json", model={"type": "BPE", "vocab": {}, "merges": []})], r"no token in the text"),
    ("llama", [_set(tokenizer_class="InternLM2Tokenizer", auto_map={"AutoTokenizer": ["a.B"]})], r"never runs"),
    ("llama", [_set(tokenizer_class="BertTokenizerFast")], r"of class BertTokenizerFast"),
    ("llama", [_set(add_eos_token="yes")], r"add_eos_token to 'yes': write true or false"),
    ("llama", [_set(add_bos_token=True, bos_token=None)], r"adds a bos_token to every text, but none is named"),
    ("gemma", [_set(add_eos_token=True, eos_token=None)], r"adds a eos_token to every text, but none is named"),
    ("codegen", [_set(add_bos_token=True)], r"add_bos_token, which CodeGenTokenizer does not support"),
    ("qwen2", [_set(tokenizer_class="LlamaTokenizer", bos_token="<|endoftext|>")], r"add_prefix_space, but"),
    ("llama", [_set(do_lower_case=True)], r"do_lower_case"),
    ("llama", [_set(fix_mistral_regex=True)], r"fix_mistral_regex"),
    ("llama", [_set(fast_tokenizer_files=["tokenizer.4.0.json"])], r"fast_tokenizer_files"),
    ("llama", [_set(strip_accents=True)], r"strip_accents.*remove the key"),
    ("llama", [_set(added_tokens_decoder={"x": token("y")})], r"tokens in tokenizer_config\.json of mine cannot"),
    ("llama", [_set(added_tokens_decoder={"3": "y"})], r"tokens in tokenizer_config\.json of mine cannot be read"),
    ("llama", [_set(bos_token=7)], r"tokens in tokenizer_config\.json of mine cannot be read"),
    ("llama", [_set(additional_special_tokens="<x>")], r"additional_special_tokens in .* is not a list of tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "damage", "reason"), REFUSED)
def test_unsupported_declarations_are_refused_by_name(
    layout: str, damage: list[Callable[[Path], None]], reason: str, tmp_path: Path
) -> None:
    folder = case(tmp_path / "files", layout)
    for act in damage:
        act(folder)
    assert re.search(reason, refusal(folder))


def test_a_vocabulary_that_gives_two_texts_the_same_ids_is_refused(tmp_path: Path) -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(tmp_path / "tokenizer.json"))
    assert "the same ids" in refusal(tmp_path)


def test_harmless_keys_change_nothing_and_unknown_ones_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = ids(read(case(tmp_path / "plain")))
    harmless = {
        "padding_side": "left",
        "errors": "replace",
        "chat_template": "x",
        "do_lower_case": False,
        "model_max_length": 5,
    }
    with caplog.at_level(logging.INFO):
        assert ids(read(case(tmp_path / "harmless", change=harmless))) == plain
        assert not caplog.records
        unknown = {"author": "me", "image_token": "<image>", "strip_accents": None}
        assert ids(read(case(tmp_path / "unknown", change=unknown))) == plain
    assert caplog.messages == ["tokenizer_config.json of mine has keys that no tokenizer reads: author, image_token"]


def test_flags_that_the_class_ignores_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """transformers 4 ignores them as well; later releases do not."""
    change = {"add_eos_token": True, "add_bos_token": False, "add_prefix_space": True}
    assert ids(read(case(tmp_path / "flags", "llama3", change))) == ids(read(case(tmp_path / "plain", "llama3")))
    assert {key for message in caplog.messages for key in re.findall(r"add_\w+", message)} == set(change)
    assert all("no effect with a PreTrainedTokenizer, as in transformers 4" in message for message in caplog.messages)


def test_flags_that_only_the_publishers_code_reads_are_refused(tmp_path: Path) -> None:
    code = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", None]}}
    for flag in ({"add_eos_token": True}, {"add_bos_token": False}):
        with pytest.raises(UnsupportedModelError, match=rf"{next(iter(flag))} .*code \(tokenization_qwen.Qwen2Tok"):
            read(case(tmp_path / next(iter(flag)), "llama3", code | flag))
    assert ids(read(case(tmp_path / "same", "llama3", code | {"add_bos_token": True})))


@pytest.mark.parametrize("tokens", [["<extra>"], {"extra_token": "<extra>"}])
def test_extra_special_tokens_of_later_releases_are_special(tokens: Any, tmp_path: Path) -> None:
    later = read(case(tmp_path / "later", change={"extra_special_tokens": tokens}))
    now = read(case(tmp_path / "now", change={"additional_special_tokens": ["<extra>"]}))
    assert ids(later) == ids(now)


def test_files_of_transformers_5_are_complete(tmp_path: Path) -> None:
    """Its Llama class adds no token by default, and does not rebuild the file's rules."""
    change = {"backend": "tokenizers", "tokenizer_class": "LlamaTokenizer", "add_prefix_space": False}
    folder = case(tmp_path / "files", "llama3", change)
    expected = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXTS[0]).ids
    assert read(folder).backend.encode(TEXTS[0]).ids == expected
    edit(folder / "tokenizer_config.json", {"add_eos_token": True})
    tokenizer = read(folder)
    end = tokenizer.backend.token_to_id("<|eot_id|>")
    assert tokenizer.backend.encode(TEXTS[0]).ids == [*expected[1:], end]


def test_special_tokens_beyond_the_vocabulary_stay_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The reference fails only on texts that contain them."""
    folder = case(tmp_path / "files", change={"pad_token": "[PAD]"})
    size = read(case(tmp_path / "plain")).backend.get_vocab_size()
    assert read(folder, size + 1).backend.token_to_id("[PAD]") == size
    assert not caplog.records
    tokenizer = read(folder, size)
    assert tokenizer.backend.token_to_id("[PAD]") is None
    assert "pad_token" not in tokenizer.named
    assert caplog.messages == ["mine has no id for its token [PAD], which stays plain text"]


def test_a_tokenizer_of_another_model_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    check_vocabulary("mine", tokenizer, 2)
    tokenizer.add_tokens([AddedToken("<new>")])
    with pytest.raises(
        ModelError, match=r"1 of its tokens, for example <new> with id 2, lie beyond the model's vocabulary of 2"
    ):
        check_vocabulary("mine", tokenizer, 2)


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose rows begin with <s> and end in </s>."""
    folder = tiny.make_base(tmp_path_factory.mktemp("ends"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizerFast", "unk_token": None, "add_eos_token": True})
    )
    return folder


def test_a_row_keeps_its_end_token_when_it_is_cut(two_ends: Path) -> None:
    encoder = load(str(two_ends), dtype="float32", max_length=12, doc_max_length=10)
    assert (encoder.tokenization.leading, encoder.tokenization.trailing) == (1, 1)
    (short, cut) = encoder.tokenize([Input("abc"), Input("abcdefghij", "x y z:")])
    assert list(short.ids) == [256, *read(two_ends).backend.encode("abc", add_special_tokens=False).ids, 257]
    assert (len(cut), cut.ids[0], cut.ids[-1]) == (12, 256, 257)


def test_truncation_side_left_cuts_the_beginning(two_ends: Path) -> None:
    edit(two_ends / "tokenizer_config.json", {"truncation_side": "left"})
    encoder = load(str(two_ends), dtype="float32", max_length=12, doc_max_length=10)
    (cut,) = encoder.tokenize([Input("abcdefgh", "x y z:")])
    assert encoder.tokenizer.backend.decode(list(cut.ids)) == ": abcdefgh"
    assert (len(cut), cut.ids[0], cut.ids[-1], cut.pooled, cut.truncated) == (12, 256, 257, 8, True)


def test_the_tokenizer_of_an_adapter_is_used_whatever_its_format(base: Path, adapter: Path, tmp_path: Path) -> None:
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.add_special_tokens(["zz"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = load(str(tmp_path), dtype="float32")
    assert encoder.tokenizer.backend.token_to_id("zz") == 258
    (tmp_path / "tokenizer.json").rename(tmp_path / "tokenizer_config.json")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ModelError, match=r"the tokenizer of .* has no vocabulary"):
        load(str(tmp_path), dtype="float32")
