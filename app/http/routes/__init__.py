"""The endpoints, one API surface per file."""
