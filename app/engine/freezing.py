"""Garbage collection of long-lived objects."""

import gc


def freeze() -> None:
    """Freezes the loaded objects, so that a full collection doesn't pause requests for 0.3 s."""
    gc.collect()
    gc.freeze()
    # Python starts a full collection once there are a quarter as many new objects as the last one left. Collect again,
    # so that few are left: otherwise, a hundred thousand could pile up first, such as malformed bodies in cycles.
    gc.collect()
