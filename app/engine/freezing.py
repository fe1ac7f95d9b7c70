"""Excludes long-lived objects from garbage collection."""

import gc


def freeze() -> None:
    """Freezes the loaded objects, so that a full collection doesn't pause requests for 0.3 s."""
    gc.collect()
    gc.freeze()
    # Python starts a full collection when the new objects outnumber a quarter of the objects that survived the last
    # full collection. The collection above counted the frozen objects, so that limit is now about a hundred thousand
    # new objects. That much garbage, such as reference cycles left by malformed requests, could pile up. A second
    # collection does not count the frozen objects, so it lowers the limit.
    gc.collect()
