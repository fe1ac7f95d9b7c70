"""Turns inputs into vectors: limits, tokenization, the queue and the engine thread. Independent of HTTP."""
