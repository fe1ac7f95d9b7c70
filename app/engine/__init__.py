"""From inputs to vectors: limits, tokenization, the queue and the engine thread. Knows nothing of HTTP."""
