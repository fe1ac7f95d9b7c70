"""Input → Encoding, with the semantics of the reference `llm2vec` 0.2.3 (docs/architecture.md lists the differences).

With sentence-transformers' semantics, the instruction goes before the text verbatim and is pooled with it, unless
`skip_instruction` is set. In that case, its tokens are counted on their own, as sentence-transformers does.

Uses only the tokenizer object of the `tokenizers` library, which threads can share. Its methods for batches release the
GIL, those for one text do not.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from l2v.models.errors import InputError, UnsupportedModelError
from l2v.models.templates import Template
from l2v.models.types import Encoding, Input, Semantics

# Tokens are counted only up to `max_length`. Of a text with more characters per token of that limit than the first of
# these, only a piece is tokenized. The piece begins with the second; while it has too few tokens, it is doubled.
_LONG, _PIECE = 16, 4
# Cutting a text in the middle of a word may change its token count by up to this much.
_CUT_SLACK = 32


@dataclass(frozen=True)
class Tokenization:
    """Converts inputs to rows of token ids.

    Attributes:
        tokenizer: the model's tokenizer, with its truncation and padding disabled.
        template: the strings around instruction and text.
        eos: the suffix that `eos_token` pooling appends after the template; pooled with the text.
        max_length: maximum length of a row, in tokens.
        doc_max_length: maximum length of a text, in tokens.
        skip_instruction: pool only the text, not all positions.
        semantics: see `types.Semantics`.
        special_ids: ids of special tokens, which may end an instruction's row without belonging to it.
        cut_left: whether rows that are too long lose their beginning, with the instruction, rather than their end.
        adapter: the id of the LoRA module that the rows are for; 0: the base stack alone.
        leading: number of special tokens that the tokenizer adds at the start.
        trailing: number of special tokens that it adds at the end.
    """

    tokenizer: Tokenizer
    template: Template
    eos: str
    max_length: int
    doc_max_length: int
    skip_instruction: bool
    semantics: Semantics = "llm2vec"
    special_ids: frozenset[int] = frozenset()
    cut_left: bool = False
    adapter: int = 0
    leading: int = field(init=False)
    trailing: int = field(init=False)

    def __post_init__(self) -> None:
        plain, special = self._ids("a", special=False), self._ids("a", special=True)
        starts = (i for i in range(len(special)) if special[i : i + len(plain)] == plain)
        if (leading := next(starts, None)) is None:
            raise UnsupportedModelError("the tokenizer changes the tokens of a text when it adds special tokens")
        object.__setattr__(self, "leading", leading)
        object.__setattr__(self, "trailing", len(special) - len(plain) - leading)

    def __call__(self, inputs: Sequence[Input]) -> list[Encoding]:
        """Tokenizes inputs; each result is independent of the other inputs.

        Raises:
            InputError: if a text is empty or blank, has no tokens, or has no room after its instruction.
        """
        for index, input_ in enumerate(inputs):
            if not input_.text.strip():
                raise InputError(index, "text", "text must not be empty or blank")
        heads = self._heads(inputs)
        trimmed = self._trim(inputs)
        tails = [self._tail(text) for text, _, _ in trimmed]
        rows = self._batch([head + tail for head, tail in zip(heads, tails, strict=True)], special=True)
        # Without a template the pooled part is the text itself, whose tokens `_trim` has counted.
        counted = [tail == text for tail, (text, _, _) in zip(tails, trimmed, strict=True)]
        uncounted = [tail for tail, done in zip(tails, counted, strict=True) if not done]
        counts = iter(self._batch(uncounted, special=False))
        excluded = self._excluded(set(heads))
        return [
            self._encoding(
                index, input_, row, trim[1] if done else len(next(counts)), cut=trim[2], excluded=excluded[head]
            )
            for index, (input_, row, done, trim, head) in enumerate(
                zip(inputs, rows, counted, trimmed, heads, strict=True)
            )
        ]

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """By token id, about how many characters the token stands for, and seldom fewer; 0 for unused ids."""
        vocabulary = self.tokenizer.get_vocab()
        lengths = np.zeros(max(vocabulary.values()) + 1, np.int32)
        for token, index in vocabulary.items():
            lengths[index] = len(token)
        return lengths

    def show(self, input_: Input, *, special: bool) -> Iterator[tuple[int, str, bool, int | None, int | None]]:
        """The tokens of an input, without template and truncation.

        Yields:
            For each token: its id, its text, whether it is special, and the start and end of its characters.
        """
        text = self._instruction(input_) + input_.text
        (row,) = self.tokenizer.encode_batch([text], add_special_tokens=special)
        for position, (id_, added) in enumerate(zip(row.ids, row.special_tokens_mask, strict=True)):
            if added:
                yield id_, str(self.tokenizer.id_to_token(id_)), True, None, None
            else:
                start, end = row.token_to_chars(position) or (0, 0)  # `offsets` would hold the GIL for 50 ms
                yield id_, text[start:end], False, start, end

    def _heads(self, inputs: Sequence[Input]) -> list[str]:
        """The head of each input. A head that fills the row is refused before it is copied for every text."""
        heads: dict[str, str] = {}
        for index, input_ in enumerate(inputs):
            if input_.instruction not in heads:
                heads[input_.instruction] = head = self._head(input_)
                if head and self._piece(head, False)[1] >= self.max_length:
                    raise self._instruction_too_long(index)
        return [heads[input_.instruction] for input_ in inputs]

    def _instruction_too_long(self, index: int) -> InputError:
        return InputError(
            index, "instruction", f"instruction leaves no room for the text within {self.max_length} tokens"
        )

    def _head(self, input_: Input) -> str:
        """The part before the text: template prefix and instruction; attended to, never pooled.

        With a template, the reference strips instruction and text together, so a blank instruction vanishes.
        """
        instruction = self._instruction(input_)
        return self.template.prefix + (instruction.lstrip() if self.template.suffix or self.eos else instruction)

    def _instruction(self, input_: Input) -> str:
        """The instruction as it precedes the text: verbatim, or stripped and followed by a space."""
        if self._verbatim or not input_.instruction:
            return input_.instruction
        return f"{input_.instruction.strip()} "

    @property
    def _verbatim(self) -> bool:
        return self.semantics == "sentence-transformers"

    def _tail(self, text: str) -> str:
        """The pooled part: the text and its suffixes. As in the reference, the text before a suffix is stripped."""
        text = text.rstrip() + self.template.suffix if self.template.suffix else text
        return text.rstrip() + self.eos if self.eos else text

    def _excluded(self, heads: set[str]) -> dict[str, int]:
        """How many positions at the start of a row sentence-transformers excludes from pooling, for each head.

        It counts the tokens of the head alone, without a special token at their end.
        """
        if not (self._verbatim and self.skip_instruction):
            return dict.fromkeys(heads, 0)
        rows = {head: self._ids(head, special=True) if head else [] for head in heads}
        return {head: len(row) - sum(id_ in self.special_ids for id_ in row[-1:]) for head, row in rows.items()}

    def _encoding(
        self, index: int, input_: Input, row: list[int], pooled: int, *, cut: bool, excluded: int
    ) -> Encoding:
        """Cuts the row to its limit and computes how many of its last positions are pooled.

        Args:
            index: position of the input, for errors.
            input_: the input.
            row: its ids.
            pooled: number of tokens of its text and suffixes.
            cut: whether its text has been cut already.
            excluded: see `_excluded`.
        """
        if not pooled:
            raise InputError(index, "text", "text has no tokens")
        limit = self.max_length if input_.max_tokens is None else min(self.max_length, input_.max_tokens)
        over = len(row) - limit
        if over > 0:
            body = len(row) - self.trailing
            if self.cut_left and not input_.keep_end:
                first = self.leading
            else:
                first = body - pooled if input_.keep_end else body - over
                pooled -= over
            row = row[:first] + row[first + over :]
            if pooled <= 0 and limit < self.max_length:
                raise InputError(index, "text", f"text has no room within {limit} tokens")
            if pooled <= 0:
                raise self._instruction_too_long(index)
        if not self.skip_instruction:
            pooled = len(row)
        elif self._verbatim:
            pooled = max(1, len(row) - excluded)  # on its own, an instruction may have one more token than in the row
        return Encoding(array("q", row), min(pooled, len(row)), cut or over > 0, self.adapter)

    def _trim(self, inputs: Sequence[Input]) -> list[tuple[str, int, bool]]:
        """Cuts texts to about `doc_max_length` tokens.

        Keeps the first int(words · doc_max_length / tokens) words, joined by one space, until they fit, counting tokens
        only up to `max_length` (reference `_convert_to_str`); with `keep_end`, the last words.

        Returns:
            For each input: its text, the number of tokens, and whether the text was cut.
        """
        sides = [input_.keep_end or (self._verbatim and self.cut_left) for input_ in inputs]
        short = [len(input_.text) <= _LONG * self.max_length for input_ in inputs]
        counts = iter(self._batch([i.text for i, whole in zip(inputs, short, strict=True) if whole], special=False))
        pieces = [
            (input_.text, len(next(counts))) if whole else self._piece(input_.text, side)
            for input_, whole, side in zip(inputs, short, sides, strict=True)
        ]
        return [
            self._shorten(input_, piece, count) if self._over(count) else (piece, count, len(piece) < len(input_.text))
            for input_, (piece, count) in zip(inputs, pieces, strict=True)
        ]

    def _over(self, count: int) -> bool:
        return min(count, self.max_length) > self.doc_max_length

    def _shorten(self, input_: Input, piece: str, count: int) -> tuple[str, int, bool]:
        text, words = input_.text, input_.text.split()
        while self._over(count):
            kept = int(len(words) * (self.doc_max_length / min(count, self.max_length)))
            if kept == 0:
                # The reference goes on to the empty text here, so a text without spaces loses everything.
                return self._cut_word(words[0], input_.keep_end)
            words = words[-kept:] if input_.keep_end else words[:kept]
            text = " ".join(words)
            if not (text.endswith(piece) if input_.keep_end else text.startswith(piece)):
                piece, count = self._piece(text, input_.keep_end)
        return text, count, True

    def _cut_word(self, word: str, keep_end: bool) -> tuple[str, int, bool]:
        """Cuts a single word to the tokens that fit, between two characters.

        If only the white space around the word was too long, the word is not cut.
        """
        text, _ = self._piece(word, keep_end)
        (encoding,) = self.tokenizer.encode_batch([text], add_special_tokens=False)
        count, length = len(encoding), self.doc_max_length
        while self._over(count) and length:
            start, end = encoding.offsets[-length][0], encoding.offsets[length - 1][1]
            cut = text[start:] if keep_end else text[:end]
            count, length = len(self._ids(cut, special=False)), length - 1
            if not self._over(count):
                text = cut
        return text, count, True

    def _piece(self, text: str, keep_end: bool) -> tuple[str, int]:
        """A part of a long text that is enough to show that it is too long, else the whole text; and its tokens."""
        size = _PIECE * self.max_length
        while size < len(text):
            piece = text[-size:] if keep_end else text[:size]
            if (count := len(self._ids(piece, special=False))) >= self.max_length + _CUT_SLACK:
                return piece, count
            size *= 2
        return text, len(self._ids(text, special=False))

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return self._batch([text], special=special)[0]

    def _batch(self, texts: list[str], *, special: bool) -> list[list[int]]:
        if not texts:  # a call takes some 20 µs, whatever it is given
            return []
        return [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=special)]
