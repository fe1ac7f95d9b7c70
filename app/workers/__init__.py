"""The service in several processes: one with the engine, and `http_workers` front ends that speak HTTP.

    client → front end: HTTP, keys, limits, tokenization → engine: queue, forward passes → front end: JSON → client

The process that the user starts is the engine (`supervisor`). It binds the port, starts the front ends (`frontend`),
and replaces front ends that end. A pair of connected sockets joins each front end to the engine (`wire`). No other
process can reach these sockets, and each side notices at once when the other side ends. A table in shared memory holds
how much of each limit is in use (`table`).
"""
