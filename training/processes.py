"""The processes of a run, from the environment variables that `accelerate launch` sets."""

import os


def is_main() -> bool:
    """Whether this is the first process, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def per_machine() -> int:
    """Number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_sharded() -> bool:
    """Whether the weights are sharded over the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"
