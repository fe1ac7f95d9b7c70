"""`l2v info`."""

import json
from typing import Any

from pydantic import Field

from l2v.app.commands.client import ClientSettings


class Info(ClientSettings):
    """Say what a model is: its base, pooling, template, lengths and where it came from.

    Examples:
        l2v info --model sheared-llama-1.3b-supervised
        l2v info --url http://localhost:8080 --json
    """

    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        info = self.ask("GET", "info") if self.url else self._here()
        if self.as_json:
            print(json.dumps(info, indent=2, ensure_ascii=False))
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(show_header=False, box=None)
        for name, value in info.items():
            table.add_row(f"[bold]{name}", escape(_shown(value)))
        Console().print(table)

    def _here(self) -> dict[str, Any]:
        from l2v.app.commands.loading import encoder_for
        from l2v.models.sources import label

        encoder = encoder_for(self)
        return {"model": label(self.model), **encoder.describe()}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_shown(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items() if item)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
