"""`l2v similarity`."""

from pydantic import Field
from pydantic_settings import CliPositionalArg

from l2v.app.bulk.errors import CommandError
from l2v.app.bulk.options import EmbedOptions
from l2v.app.bulk.rows import Row
from l2v.app.bulk.settings import ClientSettings
from l2v.app.commands.output import show


class Similarity(ClientSettings):
    """Rank documents by their similarity to a query: the cosine, unless the model declares the dot product.

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
        from l2v.app.engine.vectors import similarity

        # The metric may need vectors that are not normalized.
        with self.open_embedder(EmbedOptions(normalize=False)) as embedder:
            if isinstance(embedder, RemoteEmbedder):  # the service has its own default instructions
                fields = {"documents", "query_instruction", "document_instruction"}
                body = self.model_dump(include=fields, exclude_none=True) | {"queries": [self.query]}
                if self.model_name is not None:
                    body["model"] = self.model_name
                return list(embedder.request("POST", "similarity", body)["scores"][0])
            query, document = (
                embedder.prompts.default(side) if given is None else given
                for side, given in (("query", self.query_instruction), ("document", self.document_instruction))
            )
            documents = [Row(number, text, document) for number, text in enumerate(self.documents, 1)]
            embedded = embedder.submit([Row(0, self.query, query), *documents]).result()
            declared = embedder.encoder.declaration
        if embedded.bad:
            row = embedded.bad[0]
            raise CommandError(f"document {row.number}: {row.reason}" if row.number else f"query: {row.reason}")
        vectors, metric, normalized = embedded.vectors, declared.similarity.value, declared.normalize.value
        return [float(score) for score in similarity(vectors[:1], vectors[1:], metric, normalized=normalized)[0]]
