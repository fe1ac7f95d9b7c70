"""Rows of the input, good and bad."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from l2v.app.bulk.options import Columns
from l2v.models.types import is_unicode


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be embedded, found by the source, the embedder or the writer.

    Attributes:
        number: the position in the input, from 1.
        reason: what is wrong, without quoting the row's data.
        raw: the row's data, written to the file of bad rows and nowhere else.
    """

    number: int
    reason: str
    raw: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Row:
    """A row to embed."""

    number: int
    text: str = field(repr=False)
    instruction: str | None = field(default=None, repr=False)
    kept: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def bad(self, reason: str) -> BadRow:
        """This row as a bad row."""
        instruction = {} if self.instruction is None else {"instruction": self.instruction}
        return BadRow(self.number, reason, {"text": self.text, **instruction, **self.kept})


def check_row(number: int, values: Mapping[str, Any], columns: Columns, raw: Any) -> Row | BadRow:
    """Build a row from its columns, or a bad row if the API would reject the row."""
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
    return Row(number, text, instruction, {name: values.get(name) for name in columns.keep})


def _fault(value: Any) -> str | None:
    if value is None:
        return "is null"
    if not isinstance(value, str):
        return f"must be text, not {type(value).__name__}"
    if "\0" in value:
        return "contains a NUL character"
    return None if is_unicode(value) else "is not UTF-8"
