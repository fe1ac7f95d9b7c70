"""A few passages, a question for each, and a function that embeds them with l2v. Only questions have an instruction."""

import httpx

PASSAGES = [
    "The cat sits on the mat in front of the fire.",
    "Share prices fell sharply on the stock market today.",
    "Open the file and read its lines one by one.",
]
QUESTIONS = ["Where is the cat sitting?", "What happened to the price of shares?", "How do I read a file line by line?"]
INSTRUCTION = "Given a question, retrieve passages that answer it:"


def embed(url: str, texts: list[str], instruction: str | None = None) -> list[list[float]]:
    """Embed texts as unit vectors."""
    response = httpx.post(f"{url}/embed", json={"inputs": texts, "instruction": instruction}, timeout=60)
    response.raise_for_status()
    return response.json()["embeddings"]
