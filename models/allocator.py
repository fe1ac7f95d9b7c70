"""Memory of the CPU: what weights lie in, and what glibc's allocator keeps for the next forward pass."""

import ctypes

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_ALWAYS, _GIBIBYTE = 2**31 - 1, 2**30


def keep_memory() -> None:
    """Makes this process give no memory back between forward passes; without glibc nothing changes.

    By default blocks of many megabytes come from the kernel, which clears each page of them at its first touch, and go
    back to it at once: a forward pass on the CPU clears gigabytes. Threads share one arena, since those of others can
    only hold blocks of less than 64 MB.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, _ALWAYS)
    mallopt(_MMAP_THRESHOLD, _GIBIBYTE)
    mallopt(_ARENA_MAX, 1)


def own_memory(model: torch.nn.Module) -> None:
    """Takes the weights out of the files that they were read from, and are mapped from as a whole.

    Where adapters change a mapped weight, its pages become copies that stay for as long as any weight of the file does;
    one with memory of its own gives it back when another layout takes its place.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()
