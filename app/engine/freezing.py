"""Garbage collection of long-lived objects."""

import gc


def freeze() -> None:
    """Freezes the loaded objects, so that a full collection doesn't pause requests for 0.3 s."""
    gc.collect()
    gc.freeze()
    # Python starts a full collection when new objects outnumber a quarter of the objects that survived the last full
    # collection. The frozen objects survived the collection above, so a hundred thousand new objects, such as malformed
    # bodies in cycles, could pile up before the next collection. Few objects survive the second collection below.
    gc.collect()
