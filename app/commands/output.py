"""Printing a command's result, as a table or as JSON."""

import json
from collections.abc import Iterable, Sequence
from typing import Any


def show(
    result: Any, as_json: bool, columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str | None = None
) -> None:
    """Print `result` as JSON if `as_json` is set, else `rows` as a table with right-aligned integers."""
    if as_json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, caption=caption)
    for row in rows:
        table.add_row(*(Text(str(cell), justify="right" if isinstance(cell, int) else None) for cell in row))
    Console().print(table)
