"""Index passages in LanceDB (embedded, in a temporary folder) and search: `python examples/lancedb_search.py [URL]`."""

import sys
import tempfile

import lancedb
from corpus import INSTRUCTION, PASSAGES, QUESTIONS, embed


def main(url: str) -> list[list[int]]:
    """Find the index of the best passage for each question."""
    with tempfile.TemporaryDirectory() as folder:
        rows = [{"place": place, "vector": vector} for place, vector in enumerate(embed(url, PASSAGES))]
        table = lancedb.connect(folder).create_table("passages", rows)
        found = [table.search(query).limit(1).to_list() for query in embed(url, QUESTIONS, INSTRUCTION)]
    return [[row["place"] for row in rows] for rows in found]


if __name__ == "__main__":
    for question, (place,) in zip(QUESTIONS, main(*sys.argv[1:] or ["http://localhost:8080"]), strict=True):
        print(f"{question} {PASSAGES[place]}")
