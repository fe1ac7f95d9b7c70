"""Tests of the promises in docs/reliability.md against real server processes, one module per promise.

`python -m tests.chaos` runs them at full length and writes the results to that page. `test_promises.py` runs a short
form of each.
"""
