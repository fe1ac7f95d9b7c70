"""The HTTP edge: connections, limits, keys, the API surfaces and their errors."""
