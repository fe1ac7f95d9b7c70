"""Intended differences from the reference, and the cost of huge texts. tests/parity tests equality."""

import time
from array import array
from dataclasses import replace

import pytest

from l2v.models import Encoder, Input, InputError
from l2v.models.templates import TEMPLATES
from l2v.models.tokenization import Tokenization
from l2v.models.types import Semantics


@pytest.fixture
def tokenization(encoder: Encoder) -> Tokenization:
    """One token per byte after <s> (256), so the text shows the number of tokens."""
    return encoder.tokenization


def text_of(tokenization: Tokenization, ids: "array[int]") -> str:
    text: str = tokenization.tokenizer.decode(list(ids))
    return text


def test_special_tokens_of_the_tokenizer_are_found(tokenization: Tokenization) -> None:
    assert (tokenization.leading, tokenization.trailing) == (1, 0)


def test_instruction_is_attended_to_and_not_pooled(tokenization: Tokenization) -> None:
    (encoding,) = tokenization([Input("hello", " Find: ")])
    assert encoding.ids[0] == 256
    assert text_of(tokenization, encoding.ids) == "Find: hello"
    assert encoding.pooled == len("hello")
    assert not encoding.truncated


def test_skip_instruction_false_pools_every_position(tokenization: Tokenization) -> None:
    (encoding,) = replace(tokenization, skip_instruction=False)([Input("hello", "Find:")])
    assert encoding.pooled == len(encoding)


@pytest.mark.parametrize("text", ["x" * 450, "世界" * 400, "🙂" * 300, "é" * 399 + "x" * 9])
def test_a_long_text_without_spaces_is_cut_by_tokens(tokenization: Tokenization, text: str) -> None:
    (encoding,) = tokenization([Input(text)])
    kept = text_of(tokenization, encoding.ids)
    assert encoding.truncated
    assert text.startswith(kept)
    assert 396 <= encoding.pooled <= 400
    assert encoding.pooled == len(kept.encode())


@pytest.mark.parametrize("text", [" " * 600 + "hi", "\n" * 1000 + "hi", "hi" + " " * 600, "　" * 500 + "hi"])
@pytest.mark.parametrize("keep_end", [False, True])
def test_surrounding_white_space_does_not_cost_words(tokenization: Tokenization, text: str, keep_end: bool) -> None:
    (encoding,) = tokenization([Input(text, keep_end=keep_end)])
    assert text_of(tokenization, encoding.ids) == "hi"
    assert (encoding.pooled, encoding.truncated) == (2, True)


@pytest.mark.parametrize("keep_end", [False, True])
def test_a_text_of_a_few_long_words_is_cut_between_characters(tokenization: Tokenization, keep_end: bool) -> None:
    """Less than a word would be left, but not only the first word counts."""
    limits = replace(tokenization, max_length=2000, doc_max_length=40)
    words = [letter * 300 for letter in "abcde"]
    for text in (" ".join(words), f"x {' '.join(words)} y"):
        (encoding,) = limits([Input(text, keep_end=keep_end)])
        kept = text_of(tokenization, encoding.ids)
        assert text.endswith(kept) if keep_end else text.startswith(kept)
        assert encoding.pooled == 40


def test_no_row_is_without_a_token_of_the_text(tokenization: Tokenization) -> None:
    """A suffix of the template stays, however little room there is."""
    suffixed = replace(tokenization, template=replace(TEMPLATES["inst"], suffix=" [/INST]"))
    head, suffix = 1 + len("[INST] "), len(" [/INST]")
    for room in (suffix, suffix + 1):
        input_ = Input("a long text", keep_end=True, max_tokens=head + room)
        if room > suffix:
            (encoding,) = suffixed([input_])
            assert text_of(tokenization, encoding.ids).endswith("t [/INST]")
        else:
            with pytest.raises(InputError, match=f"no room within {head + room} tokens"):
                suffixed([input_])
    cut_left = replace(tokenization, cut_left=True)
    for limits, size in (
        (tokenization, 0),
        (tokenization, 1),
        (cut_left, 0),
        (cut_left, 1),
        (replace(suffixed, cut_left=True), 1 + suffix),
    ):
        with pytest.raises(InputError, match=f"no room within {size} tokens"):
            limits([Input("a long text", max_tokens=size)])


@pytest.mark.parametrize("semantics", ["llm2vec", "sentence-transformers"])
def test_the_request_overrides_the_side_that_the_tokenizer_declares(
    tokenization: Tokenization, semantics: Semantics
) -> None:
    left = replace(tokenization, cut_left=True, semantics=semantics, max_length=20, doc_max_length=20)
    for text in ("begin" + "x" * 30 + "end", "begin" + "x" * 5_000 + "end"):
        kept = [text_of(tokenization, left([Input(text, keep_end=side)])[0].ids) for side in (None, True, False)]
        assert [(part.startswith("begin"), part.endswith("end")) for part in kept] == [
            (False, True),
            (False, True),
            (True, False),
        ]


@pytest.mark.parametrize("text", ["x" * 300 + "yz" * 200, "世界" * 400])
def test_the_end_can_be_kept(tokenization: Tokenization, text: str) -> None:
    (encoding,) = tokenization([Input(text, "Find:", keep_end=True)])
    assert text.endswith(text_of(tokenization, encoding.ids[-encoding.pooled :]))
    assert 396 <= encoding.pooled <= 400


def test_a_huge_instruction_is_refused_before_it_is_copied_to_every_text(tokenization: Tokenization) -> None:
    inputs = [Input("x", "y" * 100_000)] * 2000
    started = time.process_time()
    with pytest.raises(InputError) as refused:
        tokenization(inputs)
    assert refused.value.field == "instruction"
    assert time.process_time() - started < 1


def test_the_references_separator_is_ordinary_text(tokenization: Tokenization) -> None:
    text = "mind the !@#$%^&*() gap"
    (encoding,) = tokenization([Input(text, "Find:")])
    assert encoding.pooled == len(text)
    assert text_of(tokenization, encoding.ids) == f"Find: {text}"


@pytest.mark.parametrize("text", ["", " ", "\n\t　"])
def test_an_empty_text_is_refused_with_its_index(tokenization: Tokenization, text: str) -> None:
    with pytest.raises(InputError) as refused:
        tokenization([Input("fine"), Input(text, "Find:")])
    assert (refused.value.index, refused.value.field) == (1, "text")


def test_the_pooled_span_excludes_the_instruction_when_the_row_is_cut(tokenization: Tokenization) -> None:
    """The reference pools the last N positions of the cut row, which include part of the instruction."""
    (encoding,) = tokenization([Input("t" * 300, "i" * 399)])
    assert len(encoding) == 512
    assert encoding.truncated
    assert encoding.pooled == 512 - 1 - 400  # beginning token, instruction and space are kept, the text is cut
    assert text_of(tokenization, encoding.ids[-encoding.pooled :]) == "t" * encoding.pooled


def test_an_instruction_that_pushes_the_text_out_is_refused(tokenization: Tokenization) -> None:
    with pytest.raises(InputError) as refused:
        tokenization([Input("text", "i" * 600)])
    assert refused.value.field == "instruction"


def test_a_cut_row_keeps_its_trailing_special_token(tokenization: Tokenization) -> None:
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_str(tokenization.tokenizer.to_str())
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    both = replace(tokenization, tokenizer=tokenizer)
    assert (both.leading, both.trailing) == (1, 1)
    (encoding,) = both([Input("t" * 300, "i" * 399)])
    assert (len(encoding), encoding.ids[0], encoding.ids[-1]) == (512, 256, 257)


def test_text_is_trimmed_by_words_before_the_instruction_is_added(tokenization: Tokenization) -> None:
    (encoding,) = tokenization([Input("one  two\n" * 100, "Find:")])
    kept = text_of(tokenization, encoding.ids).removeprefix("Find: ")
    assert encoding.truncated
    assert kept == " ".join((["one", "two"] * 100)[: len(kept.split())])
    assert encoding.pooled == len(kept) <= 400


def test_no_trimming_when_texts_may_be_as_long_as_rows(tokenization: Tokenization) -> None:
    (encoding,) = replace(tokenization, doc_max_length=512)([Input("word " * 50_000)])
    assert (len(encoding), encoding.pooled, encoding.truncated) == (512, 511, True)


def test_template_suffix_is_pooled_and_prefix_is_not(tokenization: Tokenization) -> None:
    (encoding,) = replace(tokenization, template=TEMPLATES["inst"])([Input(" hello ", "Find:")])
    assert text_of(tokenization, encoding.ids) == "[INST] Find:  hello [/INST]"
    assert encoding.pooled == len(" hello [/INST]")


def test_a_huge_text_costs_little(tokenization: Tokenization) -> None:
    """The reference tokenizes the whole text about twenty times; here only a piece of bounded length."""
    huge = [Input("word " * 200_000), Input("x" * 1_000_000)]
    started = time.process_time()
    encodings = tokenization(huge)
    assert time.process_time() - started < 5
    assert all(encoding.truncated and encoding.pooled <= 400 for encoding in encodings)
    small = tokenization([Input("word " * 4_000)])[0]
    assert 300 < small.pooled <= 400


def test_inputs_are_tokenised_as_if_alone(tokenization: Tokenization) -> None:
    inputs = [Input("a", "b:"), Input("c" * 500), Input("d  e"), Input("f " * 300, "g")]
    assert tokenization(inputs) == [tokenization([input_])[0] for input_ in inputs]
