"""Runs `l2v` with FSDP on the CPU, which accelerate allows on GPUs only.

With SAVE_LATE set, all processes but the first write their part of a checkpoint late.
"""

import os
import time
from types import SimpleNamespace

from accelerate import state
from transformers import Trainer

from l2v.app.cli import main

# Make accelerate accept CPU processes when it decides whether to shard.
kinds = {kind.name: kind for kind in state.DistributedType}
state.DistributedType = SimpleNamespace(**kinds | {"MULTI_NEURON": kinds["MULTI_CPU"]})


def save_late(trainer: Trainer, folder: str) -> None:
    """Save like a slow disk: a checkpoint that is interrupted meanwhile must not count as complete."""
    time.sleep(0.5)
    save(trainer, folder)


save = Trainer._save_rng_state
if "SAVE_LATE" in os.environ and os.environ["RANK"] != "0":
    Trainer._save_rng_state = save_late
main()
