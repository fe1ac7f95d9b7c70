"""Bulk embedding: embed the rows of a file, in this process or through a service, and resume if interrupted.

The rows pass source → batches → embedder (local or remote) → sink.
"""
