"""CPU memory: the settings of glibc's allocator, and weights that are mapped from files."""

import ctypes
from collections.abc import Callable

import torch

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER_TRIM, _GIBIBYTE = 2**31 - 1, 2**30


def keep_freed_memory() -> None:
    """Makes glibc keep memory that is freed from now on, for reuse. Does nothing without glibc.

    By default, glibc takes blocks of many megabytes from the kernel and returns them when they are freed. The kernel
    clears each page when it is first touched again, so forward passes and merging adapters spend their time
    clearing gigabytes. This function also makes all threads share the main arena, since other arenas cannot hold
    blocks of 64 MB and more, and returns memory that is already free to the kernel.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    mallopt(_MMAP_THRESHOLD, _GIBIBYTE)
    mallopt(_ARENA_MAX, 1)
    trim(0)


def unmap_weights(model: torch.nn.Module, advance: Callable[[int], None] = lambda size: None) -> None:
    """Copies weights on the CPU out of the files that they are mapped from. Calls `advance` with each weight's bytes.

    When a mapped weight is changed, its pages are copied, and the copies live as long as any weight of the file. A
    weight with its own memory can be freed separately.
    """
    for weight in model.parameters():
        if weight.device.type == "cpu":
            weight.data = weight.data.clone()
        advance(weight.nbytes)
