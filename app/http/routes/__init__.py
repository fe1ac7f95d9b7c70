"""One API surface a file, no logic."""
