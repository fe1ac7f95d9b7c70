"""Index passages in Qdrant (in its client's local mode) and search: `python examples/qdrant_search.py [URL]`."""

import sys

from corpus import INSTRUCTION, PASSAGES, QUESTIONS, embed
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams


def main(url: str) -> list[list[int]]:
    """Find the index of the best passage for each question."""
    vectors = embed(url, PASSAGES)
    store = QdrantClient(":memory:")
    store.create_collection("passages", VectorParams(size=len(vectors[0]), distance=Distance.COSINE))
    store.upsert("passages", [PointStruct(id=i, vector=vector) for i, vector in enumerate(vectors)])
    found = [
        store.query_points("passages", query=query, limit=1).points for query in embed(url, QUESTIONS, INSTRUCTION)
    ]
    return [[int(point.id) for point in points] for points in found]


if __name__ == "__main__":
    for question, (place,) in zip(QUESTIONS, main(*sys.argv[1:] or ["http://localhost:8080"]), strict=True):
        print(f"{question} {PASSAGES[place]}")
