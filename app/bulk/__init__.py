"""Embedding whole files from the shell: reading, embedding here or through a server, and writing what can be resumed.

source → batches → engine (local or remote) → sink. Imports nothing of the service but pure functions.
"""
