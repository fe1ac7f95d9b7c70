"""Garbage collection of long-lived objects."""

import gc


def freeze() -> None:
    """Freezes the loaded objects, so that a full collection doesn't pause requests for 0.3 s."""
    gc.collect()
    gc.freeze()
    # The next full collection starts when the objects grow by a quarter of what the last one left. This one leaves few;
    # otherwise, a hundred thousand objects could pile up first, such as malformed bodies in reference cycles.
    gc.collect()
