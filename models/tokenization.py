"""Input → Encoding, with the semantics of the reference `llm2vec` 0.2.3 (docs/architecture.md lists the differences).

With sentence-transformers' semantics, the instruction goes before the text verbatim and is pooled with the text. With
`skip_instruction`, the instruction is not pooled, and its tokens are counted without the text, as in
sentence-transformers.

This module uses only the tokenizer object of the `tokenizers` library, which threads can share. It encodes texts only
with the object's methods for batches, since these release the GIL, but the methods for one text do not.
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
from l2v.models.trimming import Trimmer, token_ids
from l2v.models.types import Encoding, Input, Semantics


@dataclass(frozen=True)
class Tokenization:
    """Converts inputs to rows of token ids.

    Attributes:
        tokenizer: the model's tokenizer, with its truncation and padding disabled.
        template: the strings around instruction and text.
        eos: the suffix that `eos_token` pooling appends after the template. It is pooled with the text.
        max_length: maximum length of a row, in tokens.
        doc_max_length: maximum length of a text, in tokens.
        skip_instruction: pool only the text, not all positions.
        semantics: see `types.Semantics`.
        special_ids: ids of special tokens. A special token at the end of an instruction's row does not belong to the
            instruction.
        cut_left: whether rows that are too long lose their beginning, with the instruction, rather than their end.
        adapter: the id of the LoRA module that the rows are for; 0: no module.
        leading: number of special tokens that the tokenizer adds at the start.
        trailing: number of special tokens that the tokenizer adds at the end.
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
        (plain,), (special,) = token_ids(self.tokenizer, ["a"]), token_ids(self.tokenizer, ["a"], special=True)
        starts = (i for i in range(len(special)) if special[i : i + len(plain)] == plain)
        if (leading := next(starts, None)) is None:
            raise UnsupportedModelError("the tokenizer changes the tokens of a text when it adds special tokens")
        object.__setattr__(self, "leading", leading)
        object.__setattr__(self, "trailing", len(special) - len(plain) - leading)

    def __call__(self, inputs: Sequence[Input], *, truncate: bool = True) -> list[Encoding]:
        """Tokenizes inputs. Each result is independent of the other inputs.

        Args:
            inputs: the inputs.
            truncate: False saves the time to find the best place to cut, for a caller that rejects truncated texts.

        Raises:
            InputError: if a text is empty or blank, has no tokens, or has no room after its instruction.
        """
        for index, input_ in enumerate(inputs):
            if not input_.text.strip():
                raise InputError(index, "text", "text must not be empty or blank")
        heads = self._heads(inputs)
        trimmed = self._trimmer.trim(inputs, truncate=truncate)
        tails = [self._tail(text) for text, _, _ in trimmed]
        rows = token_ids(self.tokenizer, [head + tail for head, tail in zip(heads, tails, strict=True)], special=True)
        # Without a template the pooled part is the text itself, whose tokens `trim` has counted.
        counted = [tail == text for tail, (text, _, _) in zip(tails, trimmed, strict=True)]
        uncounted = [tail for tail, done in zip(tails, counted, strict=True) if not done]
        counts = iter(token_ids(self.tokenizer, uncounted))
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
        """The approximate number of characters of each token, by id; rarely too low, and 0 for unused ids."""
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
                start, end = row.token_to_chars(position) or (0, 0)  # `offsets` holds the GIL for 50 ms
                yield id_, text[start:end], False, start, end

    def _heads(self, inputs: Sequence[Input]) -> list[str]:
        """The head of each input. A head that leaves no room for a text is refused before it is copied per text."""
        heads: dict[str, str] = {}
        for index, input_ in enumerate(inputs):
            if input_.instruction not in heads:
                heads[input_.instruction] = head = self.head(input_)
                if head and self._trimmer.piece(head, False)[1] >= self.max_length:
                    raise self._instruction_too_long(index)
        return [heads[input_.instruction] for input_ in inputs]

    def _instruction_too_long(self, index: int) -> InputError:
        return InputError(
            index, "instruction", f"instruction leaves no room for the text within {self.max_length} tokens"
        )

    def head(self, input_: Input) -> str:
        """The part before the text: template prefix and instruction.

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
        """The pooled part: the text and its suffixes.

        As in the reference, white space at the end of the text is stripped if a suffix follows.
        """
        text = text.rstrip() + self.template.suffix if self.template.suffix else text
        return text.rstrip() + self.eos if self.eos else text

    def _excluded(self, heads: set[str]) -> dict[str, int]:
        """For each head, the number of leading positions that sentence-transformers excludes from pooling.

        sentence-transformers counts the tokens of the head alone, without a special token at their end.
        """
        if not (self._verbatim and self.skip_instruction):
            return dict.fromkeys(heads, 0)
        rows = {head: token_ids(self.tokenizer, [head], special=True)[0] if head else [] for head in heads}
        return {head: len(row) - sum(id_ in self.special_ids for id_ in row[-1:]) for head, row in rows.items()}

    def _encoding(
        self, index: int, input_: Input, row: list[int], pooled: int, *, cut: bool, excluded: int
    ) -> Encoding:
        """Cuts the row to its limit and computes how many of its last positions are pooled.

        Args:
            index: position of the input, for errors.
            input_: the input.
            row: the input's token ids.
            pooled: number of tokens of the input's text and suffixes.
            cut: whether the input's text has been cut already.
            excluded: see `_excluded`.
        """
        if not pooled:
            raise InputError(index, "text", "text has no tokens")
        limit = self.max_length if input_.max_tokens is None else min(self.max_length, input_.max_tokens)
        over = len(row) - limit
        if over > 0:
            body = len(row) - self.trailing
            if self.cut_left and input_.keep_end is None:
                first, pooled = self.leading, min(pooled, limit - self.leading - self.trailing)
            else:
                first = body - pooled if input_.keep_end else body - over
                pooled -= over
            keeps_end = self.cut_left if input_.keep_end is None else input_.keep_end
            left = pooled - self._suffix_tokens if keeps_end else pooled  # the number of tokens of the text itself
            row = row[:first] + row[first + over :]
            if left <= 0 and limit < self.max_length:
                raise InputError(index, "text", f"text has no room within {limit} tokens")
            if left <= 0:
                raise self._instruction_too_long(index)
        if not self.skip_instruction:
            pooled = len(row)
        elif self._verbatim:
            pooled = max(1, len(row) - excluded)  # an instruction alone may have more tokens than in the row
        return Encoding(array("q", row), min(pooled, len(row)), cut or over > 0, self.adapter)

    @cached_property
    def _suffix_tokens(self) -> int:
        """The number of tokens that follow the text: of the template's suffix and of `eos`."""
        text, tail = token_ids(self.tokenizer, ["a", self._tail("a")])
        return len(tail) - len(text)

    @property
    def _trimmer(self) -> Trimmer:
        # The reference keeps the beginning of a text that exceeds `doc_max_length`, even if rows are cut from the left.
        cut_left = self.cut_left and (self._verbatim or self.doc_max_length >= self.max_length)
        return Trimmer(self.tokenizer, self.max_length, self.doc_max_length, cut_left)
