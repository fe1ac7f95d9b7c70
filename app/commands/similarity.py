"""`l2v similarity`."""

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.rows import Row
from l2v.app.bulk.settings import ClientSettings
from l2v.app.commands.output import show

if TYPE_CHECKING:
    from l2v.app.bulk.local import LocalEmbedder
    from l2v.app.bulk.remote import RemoteEmbedder


class Similarity(ClientSettings):
    """Rank documents by their similarity to a query.

    The similarity is the cosine, or the dot product if the model declares it.

    Examples:
        l2v similarity "a cat on a mat" "a cat is sitting on a rug" "stocks fell sharply"
        l2v similarity "where is the cat?" "on the mat" --query-instruction "Retrieve passages that answer:"
        l2v similarity "a cat" "a dog" "a stone" --url http://localhost:8080 --json
    """

    query: CliPositionalArg[str] = Field(description="Text to compare the documents with")
    documents: CliPositionalArg[list[str]] = Field(min_length=1, description="Texts to rank")
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

        with self.open_embedder(EmbedOptions()) as embedder:
            if isinstance(embedder, RemoteEmbedder):
                return self._remote_scores(embedder)
            return self._local_scores(embedder)

    def _remote_scores(self, embedder: "RemoteEmbedder") -> list[float]:
        # Omit options that the user did not give, so that the service's defaults apply.
        fields = {"documents", "query_instruction", "document_instruction"}
        body = self.model_dump(include=fields, exclude_none=True) | {"queries": [self.query]}
        if self.model_name is not None:
            body["model"] = self.model_name
        return list(embedder.request("POST", "similarity", body)["scores"][0])

    def _local_scores(self, embedder: "LocalEmbedder") -> list[float]:
        from l2v.app.engine.vectors import similarity

        query_instruction, document_instruction = self.query_instruction, self.document_instruction
        if query_instruction is None:
            query_instruction = embedder.prompts.default("query")
        if document_instruction is None:
            document_instruction = embedder.prompts.default("document")
        documents = [Row(number, text, document_instruction) for number, text in enumerate(self.documents, 1)]
        encoded = embedder.encode([Row(0, self.query, query_instruction), *documents])
        if encoded.bad:
            row = encoded.bad[0]
            raise CommandError(f"{'query' if row.number == 0 else f'document {row.number}'}: {row.reason}")
        vectors, declared = encoded.vectors, embedder.encoder.declaration
        scores = similarity(
            vectors[:1],
            vectors[1:],
            declared.similarity.value,
            embedder.encoder.dimensions,
            normalized=declared.normalize.value,
        )
        return [float(score) for score in scores[0]]
