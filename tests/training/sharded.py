"""Runs `l2v` under accelerate's FSDP on the CPU, which accelerate itself keeps for GPUs."""

from types import SimpleNamespace

from accelerate import state

from app.cli import main

# Where accelerate asks whether to shard, processes of CPUs pass for a kind of GPU.
kinds = {kind.name: kind for kind in state.DistributedType}
state.DistributedType = SimpleNamespace(**kinds | {"MULTI_NEURON": kinds["MULTI_CPU"]})
main()
