"""Speed, measured side by side with peers on the same weights.

shapes.py      checkpoints of random weights in the shapes of published models
workloads.py   what is embedded
floor.py       the least time that it can take
worker.py      one engine in a process of its own, in the venv of its library
engines.py     workers and servers, as this process sees them
posting.py     requests from many clients
measure.py     throughput and latency
report.py      what came of it, as Markdown and as pictures
backlog.py     whether cost stays linear in what waits
saturation.py  what HTTP costs under full load
results/       what has been measured, and on which machine
"""
