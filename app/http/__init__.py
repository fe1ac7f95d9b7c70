"""The HTTP edge: connections, limits, keys, the APIs and their errors."""
