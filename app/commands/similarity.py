"""`l2v similarity`."""

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.rows import Row
from l2v.app.bulk.settings import ClientSettings
from l2v.app.commands.output import show


class Similarity(ClientSettings):
    """Rank documents by the cosine similarity of their embeddings to a query's.

    Examples:
        l2v similarity "a cat on a mat" "a cat is sitting on a rug" "stocks fell sharply"
        l2v similarity "where is the cat?" "on the mat" --query-instruction "Retrieve passages that answer:"
        l2v similarity "a cat" "a dog" "a stone" --url http://localhost:8080 --json
    """

    query: CliPositionalArg[str] = Field(description="Text to compare")
    documents: CliPositionalArg[list[str]] = Field(min_length=1, description="Texts to compare it with")
    query_instruction: str | None = Field(None, description="Instruction for the query")
    document_instruction: str | None = Field(None, description="Instruction for the documents")
    as_json: bool = Field(False, description="Print JSON")

    def cli_cmd(self) -> None:
        scores = self._scores()
        matches = sorted(zip(scores, self.documents, strict=True), key=lambda match: -match[0])
        result = [{"score": round(score, 6), "document": document} for score, document in matches]
        rows = [(f"{score:.4f}", document) for score, document in matches]
        show(result, self.as_json, ("score", "document"), rows)

    def _scores(self) -> list[float]:
        from l2v.app.bulk.remote import RemoteEmbedder
        from l2v.app.engine.vectors import similarity

        with self.open_embedder(EmbedOptions()) as embedder:
            if isinstance(embedder, RemoteEmbedder):  # the service has its own default instructions
                fields = {"documents", "query_instruction", "document_instruction"}
                body = self.model_dump(include=fields, exclude_none=True) | {"queries": [self.query]}
                return list(embedder.request("POST", "similarity", body)["scores"][0])
            documents = [Row(number, text, self.document_instruction) for number, text in enumerate(self.documents, 1)]
            embedded = embedder.submit([Row(0, self.query, self.query_instruction), *documents]).result()
        if embedded.bad:
            row = embedded.bad[0]
            raise CommandError(f"document {row.number}: {row.reason}" if row.number else f"query: {row.reason}")
        return [float(score) for score in similarity(embedded.vectors[:1], embedded.vectors[1:], "cosine")[0]]
