"""The nouns that travel from the input to the output, and who fills each field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from l2v.models.types import is_unicode

if TYPE_CHECKING:
    from l2v.app.bulk.sources import Source


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns of the input are wanted. Filled from the flags.

    Attributes:
        text: what is embedded.
        instruction: where each row's own instruction stands, if anywhere.
        keep: what is carried through to the output.
    """

    text: str = "text"
    instruction: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([self.text, *([self.instruction] if self.instruction else []), *self.keep]))


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be embedded. Filled by the reader, the engine or the writer.

    Attributes:
        number: its place in the input, from 1.
        reason: what is wrong, without any of its data.
        raw: its data, for the file of bad rows alone.
    """

    number: int
    reason: str
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A row to embed. Filled by the reader."""

    number: int
    text: str = field(repr=False)
    instruction: str | None = field(default=None, repr=False)
    kept: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def bad(self, reason: str) -> BadRow:
        """The same row, set aside."""
        instruction = {} if self.instruction is None else {"instruction": self.instruction}
        return BadRow(self.number, reason, {"text": self.text, **instruction, **self.kept})


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rows of the input. Filled by `batches`.

    Attributes:
        rows: those to embed.
        bad: those at fault.
        last: the number of the last row.
        position: how far the input was read, in its own unit.
    """

    rows: list[Row]
    bad: list[BadRow]
    last: int
    position: int


def checked(number: int, values: Mapping[str, Any], columns: Columns, raw: Any) -> Row | BadRow:
    """The row with the given values of its columns, or what is wrong with it; the rules are the API's."""
    text = values.get(columns.text)
    instruction = values.get(columns.instruction) if columns.instruction else None
    if columns.text not in values:
        return BadRow(number, f"has no field {columns.text!r}", raw)
    if reason := _fault(text):
        return BadRow(number, f"{columns.text} {reason}", raw)
    assert isinstance(text, str)
    if not text.strip():
        return BadRow(number, f"{columns.text} is blank", raw)
    if instruction is not None and (reason := _fault(instruction)):
        return BadRow(number, f"{columns.instruction} {reason}", raw)
    return Row(number, text, instruction or None, {name: values.get(name) for name in columns.keep})


def _fault(value: Any) -> str | None:
    if value is None:
        return "is null"
    if not isinstance(value, str):
        return f"must be text, not {type(value).__name__}"
    if "\0" in value:
        return "holds a NUL character"
    return None if is_unicode(value) else "is not UTF-8"


def batches(source: "Source", skip: int, size: int) -> Iterator[Batch]:
    """Groups the rows behind the first `skip` by `size`, the bad ones counting, so that a resumed run groups alike."""
    rows = source.rows(skip)
    while group := list(islice(rows, size)):
        good = [row for row in group if isinstance(row, Row)]
        bad = [row for row in group if isinstance(row, BadRow)]
        yield Batch(good, bad, group[-1].number, source.position)
