"""`l2v similarity`."""

import json
import sys

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.commands.client import ClientSettings


class Similarity(ClientSettings):
    """Compare a query with documents by the cosine of their embeddings, the closest first.

    Examples:
        l2v similarity "a cat on a mat" "a cat is sitting on a rug" "stocks fell sharply"
        l2v similarity "where is the cat?" "on the mat" --query-instruction "Retrieve passages that answer:"
        l2v similarity "a cat" "a dog" "a stone" --url http://localhost:8080 --json
    """

    query: CliPositionalArg[str] = Field(description="What to compare")
    documents: CliPositionalArg[list[str]] = Field(min_length=1, description="What to compare it with")
    query_instruction: str | None = Field(None, description="For the query")
    document_instruction: str | None = Field(None, description="For the documents")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        scores = self._there() if self.url else self._here()
        matches = sorted(zip(scores, self.documents, strict=True), key=lambda match: -match[0])
        if self.as_json:
            rows = [{"score": round(score, 6), "document": document} for score, document in matches]
            print(json.dumps(rows, indent=2, ensure_ascii=False))
            return
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table("score", "document")
        for score, document in matches:
            table.add_row(f"{score:.4f}", escape(document))
        Console(file=sys.stdout).print(table)

    def _there(self) -> list[float]:
        import orjson

        body = {
            "queries": [self.query],
            "documents": self.documents,
            "query_instruction": self.query_instruction,
            "document_instruction": self.document_instruction,
        }
        content = orjson.dumps({name: value for name, value in body.items() if value is not None})
        (scores,) = self.ask("POST", "similarity", content)["scores"]
        return [float(score) for score in scores]

    def _here(self) -> list[float]:
        from l2v.app.bulk.errors import BulkError
        from l2v.app.commands.loading import encoder_for
        from l2v.app.engine.vectors import scores
        from l2v.models import Input, InputError

        encoder = encoder_for(self)
        inputs = [Input(self.query, self.query_instruction or "")]
        inputs += [Input(document, self.document_instruction or "") for document in self.documents]
        try:
            vectors = encoder.encode(inputs)
        except InputError as error:
            place = f"document {error.index}" if error.index else "the query"
            raise BulkError(f"{place}: {error}") from None
        return [float(score) for score in scores(vectors[:1], vectors[1:], "cosine")[0]]
