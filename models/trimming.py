"""Cuts texts that are too long, before they are combined with their instructions."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from l2v.models.types import Input

# Tokens are counted only up to `max_length`. Of a text with more than _LONG · max_length characters, only a piece is
# tokenized: at first _PIECE · max_length characters, then twice as many while the piece has too few tokens.
_LONG, _PIECE = 16, 4
# Cutting a text in the middle of a word may change its token count by up to this much.
_CUT_SLACK = 32


@dataclass(frozen=True, slots=True)
class Trimmer:
    """Cuts texts to the limits of a model.

    Attributes:
        tokenizer: the model's tokenizer.
        max_length: maximum length of a row, in tokens.
        doc_max_length: maximum length of a text, in tokens.
        cut_left: whether rows that are too long lose their beginning, so that the end of a text is kept.
    """

    tokenizer: Tokenizer
    max_length: int
    doc_max_length: int
    cut_left: bool = False

    def trim(self, inputs: Sequence[Input], *, truncate: bool = True) -> list[tuple[str, int, bool]]:
        """Cuts texts to about `doc_max_length` tokens, as the reference's `_convert_to_str` does.

        While a text is too long, this keeps its first int(words · doc_max_length / tokens) words, joined by one space;
        with `keep_end`, its last words. Tokens are counted only up to `max_length`. If not even one word would be left,
        the text is cut between two characters.

        Args:
            inputs: texts that are not blank.
            truncate: False: mark texts that are too long as cut, but leave them too long.

        Returns:
            For each input: the resulting text, the number of its tokens, and whether the text was cut.
        """
        sides = [self.cut_left if input_.keep_end is None else input_.keep_end for input_ in inputs]
        short = [len(input_.text) <= _LONG * self.max_length for input_ in inputs]
        counts = iter(token_ids(self.tokenizer, [i.text for i, whole in zip(inputs, short, strict=True) if whole]))
        pieces = [
            (input_.text, len(next(counts))) if whole else self.piece(input_.text, side)
            for input_, whole, side in zip(inputs, short, sides, strict=True)
        ]
        return [
            self._shorten(input_.text, side, piece, count)
            if truncate and self._over(count)
            else (piece, count, self._over(count) or len(piece) < len(input_.text))
            for input_, side, (piece, count) in zip(inputs, sides, pieces, strict=True)
        ]

    def _over(self, count: int) -> bool:
        return min(count, self.max_length) > self.doc_max_length

    def _shorten(self, text: str, keep_end: bool, piece: str, count: int) -> tuple[str, int, bool]:
        words = text.split()
        while self._over(count):
            kept = int(len(words) * (self.doc_max_length / min(count, self.max_length)))
            if kept == 0:
                # The reference would go on until the text is empty, and lose a text without spaces entirely.
                return self._cut_words(" ".join(words), keep_end)
            words = words[-kept:] if keep_end else words[:kept]
            text = " ".join(words)
            if not (text.endswith(piece) if keep_end else text.startswith(piece)):
                piece, count = self.piece(text, keep_end)
        return text, count, True

    def _cut_words(self, words: str, keep_end: bool) -> tuple[str, int, bool]:
        """Cuts words between two characters, so that as many tokens are left as fit.

        If only the white space around the words was too long, they are not cut.
        """
        text, _ = self.piece(words, keep_end)
        (encoding,) = self.tokenizer.encode_batch([text], add_special_tokens=False)
        count, length = len(encoding), self.doc_max_length
        while self._over(count) and length:
            start, end = encoding.offsets[-length][0], encoding.offsets[length - 1][1]
            cut = text[start:] if keep_end else text[:end]
            count, length = self._count(cut), length - 1
            if not self._over(count):
                text = cut
        return text, count, True

    def piece(self, text: str, keep_end: bool) -> tuple[str, int]:
        """A part of the text, and the number of its tokens.

        The part has more than `max_length` tokens, or is the whole text. With `keep_end`, it is the end of the text.
        """
        size = _PIECE * self.max_length
        while size < len(text):
            piece = text[-size:] if keep_end else text[:size]
            if (count := self._count(piece)) >= self.max_length + _CUT_SLACK:
                return piece, count
            size *= 2
        return text, self._count(text)

    def _count(self, text: str) -> int:
        return len(token_ids(self.tokenizer, [text])[0])


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
    """The token ids of each text, with special tokens if `special` is set."""
    if not texts:  # a call takes some 20 µs, even without texts
        return []
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=special)]
