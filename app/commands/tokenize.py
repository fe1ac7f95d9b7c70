"""`l2v tokenize`."""

import json
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.models.settings import ModelSettings


class Tokenize(ModelSettings):
    """Show a text as the model sees it: its tokens, their ids, and which of them are pooled.

    Examples:
        l2v tokenize "the cat sits on the mat"
        l2v tokenize "where is the cat?" --instruction "Retrieve passages that answer:"
    """

    text: CliPositionalArg[str] = Field(description="The text")
    instruction: str = Field("", description="What stands before it: attended to, not pooled")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        tokens = self._tokens()
        if self.as_json:
            print(json.dumps(tokens, indent=2, ensure_ascii=False))
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(caption=f"{len(tokens)} tokens, {sum(token['pooled'] for token in tokens)} of them pooled")
        for name in ("position", "id", "token", "pooled"):
            table.add_column(name, justify="right" if name in ("position", "id") else "left")
        for token in tokens:
            row = [str(token["position"]), str(token["id"]), escape(token["token"]), "yes" if token["pooled"] else ""]
            table.add_row(*row, style="" if token["pooled"] else "dim")
        Console().print(table)

    def _tokens(self) -> list[dict[str, Any]]:
        from l2v.app.bulk.errors import BulkError
        from l2v.app.commands.loading import encoder_for
        from l2v.models import Input, InputError

        encoder = encoder_for(self)
        try:
            (encoding,) = encoder.tokenize([Input(self.text, self.instruction)])
        except InputError as error:
            raise BulkError(str(error)) from None
        first = len(encoding) - encoding.pooled
        return [
            {
                "position": position,
                "id": id_,
                "token": encoder.tokenization.tokenizer.id_to_token(id_),
                "pooled": position >= first,
            }
            for position, id_ in enumerate(encoding.ids)
        ]
