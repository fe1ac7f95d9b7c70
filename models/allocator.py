"""CPU memory: the settings of glibc's allocator, and weights that are mapped from files."""

import ctypes

import torch

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER_TRIM, _GIBIBYTE = 2**31 - 1, 2**30


def keep_freed_memory() -> None:
    """Keeps freed memory in the process, so that the next forward pass can reuse it. Without glibc, does nothing.

    By default, glibc takes blocks of many megabytes from the kernel and returns them when they are freed. The kernel
    clears each page when it is first touched again, so a forward pass would spend its time clearing gigabytes. All
    threads share one arena, since the arenas of other threads cannot hold blocks of 64 MB and more.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_TRIM_THRESHOLD, _NEVER_TRIM)
    mallopt(_MMAP_THRESHOLD, _GIBIBYTE)
    mallopt(_ARENA_MAX, 1)


def unmap_weights(model: torch.nn.Module) -> None:
    """Copies weights on the CPU out of the files that they are mapped from.

    When a mapped weight is changed, its pages are copied, and the copies live as long as any weight of the file. A
    weight with its own memory can be freed alone.
    """
    for weight in model.parameters():
        if weight.device.type == "cpu":
            weight.data = weight.data.clone()
