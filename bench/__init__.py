"""Benchmarks that compare the speed of l2v with other libraries, on the same weights.

shapes.py      random checkpoints in the shapes of published models
workloads.py   the texts to embed
floor.py       FLOPs of a forward pass, and the rate of plain matrix products
worker.py      one library, in its own process and venv
engines.py     the engines to compare: workers and servers
peers.py       those of other libraries, by venv
gguf_writer.py checkpoints as files for llama.cpp
posting.py     requests from concurrent clients
measure.py     throughput and latency
report.py      results as JSON, Markdown and plots
backlog.py     throughput with a short and with a long queue
ceiling.py     CPU time of HTTP per request, by process
scheduling.py  scheduling policies, simulated and on real servers
mixes.py       the requests for that
policies.py    the policies to compare with ours, and a server with one of them
simulation.py  a simulated engine and its clients
saturation.py  throughput over HTTP, compared with in process
forward.py     forward passes by number of tokens: time of the host, and memory
loading.py     CPU time and memory of loading, by stage
closeness.py   vectors of each dtype, compared with float32
results/       recorded results
"""
