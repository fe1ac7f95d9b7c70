"""The promises of docs/RELIABILITY.md, each in a file of its own, kept or missed by real server processes.

`python -m tests.chaos` runs them at their full length and writes what it measured into that page; `test_promises.py`
runs a short form of each.
"""
