"""Runs `l2v` under accelerate's FSDP on the CPU, which accelerate itself keeps for GPUs; if told, one saves late."""

import os
import time
from types import SimpleNamespace

from accelerate import state
from transformers import Trainer

from l2v.app.cli import main

# Where accelerate asks whether to shard, processes of CPUs pass for a kind of GPU.
kinds = {kind.name: kind for kind in state.DistributedType}
state.DistributedType = SimpleNamespace(**kinds | {"MULTI_NEURON": kinds["MULTI_CPU"]})


def save_late(trainer: Trainer, folder: str) -> None:
    """As a slower disk would: what is killed meanwhile must not pass for whole."""
    time.sleep(0.5)
    save(trainer, folder)


save = Trainer._save_rng_state
if "SAVE_LATE" in os.environ and os.environ["RANK"] != "0":
    Trainer._save_rng_state = save_late
main()
