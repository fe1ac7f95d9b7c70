"""The service in several processes: one with the engine, and `http_workers` front ends that speak HTTP.

    client → front end: HTTP, keys, limits, tokenization → engine: queue, forward passes → front end: JSON → client

The process that the user starts is the engine (`supervisor`). It binds the port, starts the front ends (`frontend`),
and replaces those that end. A pair of connected sockets joins each front end to the engine (`wire`): nobody else can
reach it, and each side notices at once when the other one ends. The amounts that the settings limit for the whole
service are in a table of shared memory (`table`).
"""
