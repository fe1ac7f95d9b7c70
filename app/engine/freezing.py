"""Garbage collection of long-lived objects."""

import gc


def freeze() -> None:
    """Freezes the loaded objects, so that a full collection doesn't pause requests for 0.3 s."""
    gc.collect()
    gc.freeze()
    # Python starts a full collection when the new objects outnumber a quarter of those that survived the last one. The
    # frozen objects survived the one above, so a hundred thousand new objects, such as malformed bodies in cycles,
    # could pile up before the next one. Collect again, since few objects survive this collection.
    gc.collect()
